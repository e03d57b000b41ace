//! Which GPUs there are, and which one the user means.

use std::sync::OnceLock;

use serde::Serialize;

use crate::error::{Error, Result};

/// What an adapter is made of, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU lent to a virtual machine.
    Virtual,
    /// Hardware that does not say what it is.
    Other,
    /// A driver that computes on the CPU: llvmpipe, WARP, SwiftShader.
    Software,
}

impl Class {
    /// Name for tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Software => "software",
        }
    }
}

/// A GPU as the tool knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Adapter {
    /// Its place in the list, by which it can be chosen.
    pub index: usize,
    /// Name that the driver gives.
    pub name: String,
    /// `Vulkan`, `Metal` or `DX12`.
    pub backend: &'static str,
    /// What it is made of.
    pub class: Class,
    /// Driver and its version.
    pub driver: String,
    /// Number of the vendor, 0 where the backend does not tell.
    pub vendor_id: u32,
    /// The vendor's number of the device, 0 where the backend does not tell.
    pub device_id: u32,
    /// Largest buffer a kernel can see, in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer at all, in bytes.
    pub max_buffer_bytes: u64,
    /// Memory that a workgroup shares, in bytes.
    pub workgroup_bytes: u32,
    /// Fewest and most invocations that run in step.
    pub subgroup: [u32; 2],
    /// Sides of its cooperative matrices of f16 inputs and f32 sums, the largest first.
    pub cooperative: Vec<u32>,
    /// Abilities worth telling.
    pub features: Vec<&'static str>,
}

impl Adapter {
    /// True for drivers that compute on the CPU.
    pub fn is_software(&self) -> bool {
        self.class == Class::Software
    }
}

/// Which adapter to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The best hardware, or none: the caller falls back on the CPU.
    Auto,
    /// The best adapter; a software driver if there is nothing else.
    Any,
    /// By its place in the list.
    Index(usize),
    /// The best one whose name contains this, in any case.
    Name(String),
}

impl Choice {
    /// Reads `auto`, `gpu`, a number or a part of a name.
    pub fn parse(text: &str) -> Self {
        match text {
            "auto" => Self::Auto,
            "gpu" => Self::Any,
            _ => text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Index),
        }
    }
}

/// All adapters, in the order that the drivers give.
pub fn list() -> Vec<Adapter> {
    enumerate().into_iter().map(|(adapter, _)| adapter).collect()
}

/// The place in `adapters` of the one that `choice` means; `None` only for [`Choice::Auto`].
pub fn choose(adapters: &[Adapter], choice: &Choice) -> Result<Option<usize>> {
    let best = |wanted: &dyn Fn(&Adapter) -> bool| {
        let fitting = adapters.iter().enumerate().filter(|(_, a)| wanted(a));
        fitting.min_by_key(|(_, a)| a.class).map(|(i, _)| i)
    };
    let found = match choice {
        Choice::Auto => return Ok(best(&|a| !a.is_software())),
        Choice::Any => best(&|_| true),
        Choice::Index(index) => (*index < adapters.len()).then_some(*index),
        Choice::Name(name) => {
            let name = name.to_lowercase();
            best(&|a| a.name.to_lowercase().contains(&name))
        }
    };
    found.map(Some).ok_or_else(|| missing(adapters.len(), choice))
}

/// The places of the best adapter, of software only if there is nothing else, and of all that are like it: whatever they
/// compute has the same bits.
///
/// # Errors
/// No adapter.
pub fn alike(adapters: &[Adapter]) -> Result<Vec<usize>> {
    let best = &adapters[choose(adapters, &Choice::Any)?.expect("`Any` finds one or fails")];
    let is_like = |other: &Adapter| {
        (&other.name, other.backend, &other.driver, other.device_id)
            == (&best.name, best.backend, &best.driver, best.device_id)
    };
    let others = adapters.iter().filter(|other| !is_like(other) && other.class != Class::Software);
    for other in others {
        log::warn!("`{}` is left out: last bits may differ from those of `{}`", other.name, best.name);
    }
    Ok((0..adapters.len()).filter(|&place| is_like(&adapters[place])).collect())
}

fn missing(count: usize, choice: &Choice) -> Error {
    if count == 0 {
        return Error::device("no GPU was found")
            .hint("install a Vulkan, Metal or DX12 driver, or run with `--device cpu`");
    }
    let message = match choice {
        Choice::Index(index) => format!("there is no GPU {index}; the numbers go from 0 to {}", count - 1),
        Choice::Name(name) => format!("no GPU has a name that contains `{name}`"),
        Choice::Auto | Choice::Any => "no GPU can be used".to_owned(),
    };
    Error::usage(message).hint("`magic devices` lists them")
}

/// False where the system shows no sign of a hardware GPU, so that looking for one through the drivers, which loads
/// even those that compute on the CPU, can be spared.
pub(super) fn hardware_is_possible() -> bool {
    const SIGNS: [&str; 6] = ["/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/mali0", "/dev/kgsl-3d0", "/dev/pvr_sync"];
    !cfg!(target_os = "linux") || SIGNS.iter().any(|path| std::path::Path::new(path).exists())
}

/// All adapters with their handles. Backends that show the same GPU a second time (OpenGL) are left out.
pub(super) fn enumerate() -> Vec<(Adapter, wgpu::Adapter)> {
    let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
    desc.backends = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::all()) & wgpu::Backends::PRIMARY;
    desc.flags = wgpu::InstanceFlags::empty().with_env();
    // Where the driver knows its budget, running out of memory is an error and not a crawl.
    desc.memory_budget_thresholds.for_resource_creation = Some(95);
    // It stays: drivers that are unloaded are still called by threads that end later, and crash.
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    let backends = desc.backends;
    let instance = INSTANCE.get_or_init(|| wgpu::Instance::new(desc));
    let handles = pollster::block_on(instance.enumerate_adapters(backends));
    handles.into_iter().enumerate().map(|(index, handle)| (describe(index, &handle), handle)).collect()
}

fn describe(index: usize, handle: &wgpu::Adapter) -> Adapter {
    let (info, limits) = (handle.get_info(), handle.limits());
    let class = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => Class::Discrete,
        wgpu::DeviceType::IntegratedGpu => Class::Integrated,
        wgpu::DeviceType::VirtualGpu => Class::Virtual,
        wgpu::DeviceType::Cpu => Class::Software,
        wgpu::DeviceType::Other => Class::Other,
    };
    let backend = match info.backend {
        wgpu::Backend::Vulkan => "Vulkan",
        wgpu::Backend::Metal => "Metal",
        wgpu::Backend::Dx12 => "DX12",
        _ => "other",
    };
    let known = [
        (wgpu::Features::SHADER_F16, "f16"),
        (wgpu::Features::SUBGROUP, "subgroups"),
        (wgpu::Features::SHADER_INT64, "int64"),
        (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
        (wgpu::Features::MAPPABLE_PRIMARY_BUFFERS, "mappable buffers"),
        (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative matrices"),
    ];
    let features = handle.features();
    Adapter {
        index,
        name: info.name,
        backend,
        class,
        driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
        vendor_id: info.vendor,
        device_id: info.device,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        subgroup: [info.subgroup_min_size, info.subgroup_max_size],
        cooperative: cooperative(handle),
        features: known.into_iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| name).collect(),
    }
}

/// What `shaders/matmul_coop.wgsl` needs of a device.
pub(super) const COOPERATIVE: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

/// Workgroup memory that it takes, in bytes.
const COOPERATIVE_BYTES: u32 = 24 << 10;

fn cooperative(handle: &wgpu::Adapter) -> Vec<u32> {
    let room = handle.limits().max_compute_workgroup_storage_size >= COOPERATIVE_BYTES;
    if !room || !handle.features().contains(COOPERATIVE) {
        return Vec::new();
    }
    sides(&handle.cooperative_matrix_properties())
}

/// Sides of square matrices of f16 inputs and f32 sums, the largest first.
fn sides(all: &[wgpu::CooperativeMatrixProperties]) -> Vec<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let has = |side: &u32| {
        all.iter().any(|of| [of.m_size, of.n_size, of.k_size] == [*side; 3] && (of.ab_type, of.cr_type) == (F16, F32))
    };
    [16, 8].into_iter().filter(has).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapters(classes: &[(&str, Class)]) -> Vec<Adapter> {
        let adapter = |(index, (name, class)): (usize, &(&str, Class))| Adapter {
            index,
            name: (*name).to_owned(),
            backend: "Vulkan",
            class: *class,
            driver: String::new(),
            vendor_id: 0,
            device_id: 0,
            max_binding_bytes: 1 << 27,
            max_buffer_bytes: 1 << 28,
            workgroup_bytes: 16384,
            subgroup: [32, 32],
            cooperative: Vec::new(),
            features: Vec::new(),
        };
        classes.iter().enumerate().map(adapter).collect()
    }

    #[test]
    fn auto_takes_the_best_hardware_and_never_a_software_driver() {
        let all = adapters(&[
            ("llvmpipe", Class::Software),
            ("Other", Class::Other),
            ("Iris", Class::Integrated),
            ("Arc A770", Class::Discrete),
            ("Arc B580", Class::Discrete),
        ]);
        assert_eq!(choose(&all, &Choice::parse("auto")).unwrap(), Some(3));
        assert_eq!(choose(&all[..3], &Choice::parse("auto")).unwrap(), Some(2));
        assert_eq!(choose(&all[..1], &Choice::parse("auto")).unwrap(), None);
        assert_eq!(choose(&all[..1], &Choice::parse("gpu")).unwrap(), Some(0));
        assert_eq!(choose(&all, &Choice::parse("gpu")).unwrap(), Some(3));
        assert_eq!(choose(&all, &Choice::parse("LLVM")).unwrap(), Some(0));
        assert_eq!(choose(&all, &Choice::parse("b580")).unwrap(), Some(4));
        assert_eq!(choose(&all, &Choice::parse("2")).unwrap(), Some(2));
    }

    #[test]
    fn all_are_those_like_the_best() {
        let all = adapters(&[
            ("llvmpipe", Class::Software),
            ("Arc B580", Class::Discrete),
            ("Iris", Class::Integrated),
            ("Arc B580", Class::Discrete),
        ]);
        assert_eq!(alike(&all).unwrap(), [1, 3]);
        assert_eq!(alike(&all[..1]).unwrap(), [0]);
        let mut other = all.clone();
        other[3].driver = "newer".into();
        assert_eq!(alike(&other).unwrap(), [1]);
        assert!(alike(&[]).is_err());
    }

    #[test]
    fn square_matrices_of_f16_and_f32_will_do() {
        use wgpu::CooperativeScalarType::{F16, F32};
        let matrices = |[m_size, n_size, k_size]: [u32; 3], ab_type, cr_type| wgpu::CooperativeMatrixProperties {
            m_size,
            n_size,
            k_size,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        };
        let small = matrices([8; 3], F16, F32);
        assert_eq!(sides(&[small, matrices([16; 3], F16, F32)]), [16, 8]);
        assert_eq!(sides(&[small, matrices([16; 3], F16, F16), matrices([8, 16, 16], F16, F32)]), [8]);
        assert!(sides(&[matrices([8; 3], F32, F32), matrices([8; 3], F16, F16)]).is_empty());
    }

    #[test]
    fn a_wrong_choice_is_an_error_with_a_hint() {
        let all = adapters(&[("Iris", Class::Integrated)]);
        for text in ["1", "geforce"] {
            let error = choose(&all, &Choice::parse(text)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(error.hints()[0].contains("magic devices"), "{text}");
        }
        assert_eq!(choose(&[], &Choice::parse("gpu")).unwrap_err().exit_code(), 1);
        assert_eq!(choose(&[], &Choice::parse("auto")).unwrap(), None);
    }
}
