//! Every shader is valid, and is what its declaration says, with no GPU at hand; also those that are built.

use std::collections::HashSet;

use magic_merge::bench::copy::COPY;
use magic_merge::checkpoint::Dtype;
use magic_merge::kernels::blend::Along;
use magic_merge::kernels::drop_ranked::Chances;
use magic_merge::kernels::factor::{Bounds, Factor, Rule, Strength};
use magic_merge::kernels::trim::Threshold;
use magic_merge::kernels::{
    ALL, Access, Form, Kernel, WORKGROUP, blend, clip, combine, consensus, delta, drop, drop_ranked, elect, factor,
    mask, norms, rescale, residual, scale, source, trim, variance, widen,
};
use magic_merge::recording::{Buf, Extent, Recording, Role, Size};
use magic_merge::shader::{Built, Device, Run, program};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Override, StorageAccess, TypeInner};

/// Storage buffers that every device gives a kernel.
const MAX_BINDINGS: usize = 8;

/// Kernels that are shaders of their own.
fn whole() -> impl Iterator<Item = &'static Kernel> {
    ALL.iter().copied().filter(|kernel| matches!(kernel.form, Form::Shader(_)))
}

fn parse(kernel: &Kernel) -> (Module, ModuleInfo) {
    parse_text(kernel.name, &source(kernel), Capabilities::empty())
}

/// `own` is what the shader may use beside what every device has.
fn parse_text(name: &str, text: &str, own: Capabilities) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|e| panic!("{name}: {}\n{text}", e.emit_to_string_with_path(text, name)));
    let info = validate(name, &module, own);
    (module, info)
}

fn validate(name: &str, module: &Module, own: Capabilities) -> ModuleInfo {
    let capabilities = if cooperative(name) {
        Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP
    } else {
        Capabilities::empty()
    };
    Validator::new(ValidationFlags::all(), capabilities | own)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(module)
        .unwrap_or_else(|e| panic!("{name}: {e:?}"))
}

/// Kernels that only `--fast-gemm` runs, and only on Vulkan and Metal.
fn cooperative(name: &str) -> bool {
    ALL.iter().any(|kernel| kernel.name == name && kernel.wgsl.starts_with("enable "))
}

/// The module with every constant at `value`, as a driver gets it.
fn specialise(kernel: &Kernel, value: f64) -> (Module, ModuleInfo) {
    let (module, info) = parse(kernel);
    let constants = kernel.constants.iter().map(|name| ((*name).to_owned(), value)).collect();
    let entry = Some((naga::ShaderStage::Compute, "main"));
    let (module, info) = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
        .unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
    (module.into_owned(), info.into_owned())
}

fn translate(name: &str, module: &Module, info: &ModuleInfo) {
    let spirv = naga::back::spv::write_vec(module, info, &Default::default(), None);
    spirv.unwrap_or_else(|e| panic!("{name} for Vulkan: {e}"));
    let options = naga::back::msl::Options { fake_missing_bindings: true, lang_version: (2, 4), ..Default::default() };
    let metal = naga::back::msl::write_string(module, info, &options, &Default::default());
    metal.unwrap_or_else(|e| panic!("{name} for Metal: {e}"));
    if cooperative(name) {
        return;
    }
    let mut text = String::new();
    let options = naga::back::hlsl::Options { fake_missing_bindings: true, ..Default::default() };
    let defaults = Default::default();
    let dx12 = naga::back::hlsl::Writer::new(&mut text, &options, &defaults).write(module, info, None);
    dx12.unwrap_or_else(|e| panic!("{name} for DX12: {e}"));
}

#[test]
fn shaders_are_valid_and_translate_for_every_backend() {
    for kernel in whole().chain([&COPY]) {
        for value in [0.0, 1.0, 3.0] {
            let (module, info) = specialise(kernel, value);
            validate(kernel.name, &module, Capabilities::empty());
            translate(kernel.name, &module, &info);
        }
    }
}

/// Every kernel of elements and sums, one after the other; the stack is a result, or nobody sees it.
fn all_quads(dtype: Dtype, experts: u32, seen: bool) -> Recording {
    let mut list = Recording::new(experts + 1);
    let inputs: Vec<_> = (0..=experts as usize).map(|model| list.input("model", model, dtype)).collect();
    let size = Size::Planes(experts + 1);
    let tau = if seen { list.result("tau", size) } else { list.scratch("tau", size) };
    let differences = |list: &mut Recording| {
        (0..experts).for_each(|k| delta::record(list, inputs[0], inputs[k as usize + 1], tau, k));
    };
    widen::record(&mut list, inputs[0], tau, experts);
    differences(&mut list);
    let threshold = Threshold::new(7, 1);
    if experts > 0 {
        trim::record(&mut list, tau, 0, threshold, Threshold::NOTHING);
        drop::record(&mut list, tau, 0, [1, 2], 0.5, 2.0);
        let ranks = list.table("ranks", 1, &[0.0; 4096]);
        list.buffers[ranks.0].size = Size::Planes(1);
        list.buffers[ranks.0].role = Role::Scratch;
        let chances = Chances { density: 0.5, epsilon: 0.1, row_len: 3 };
        drop_ranked::record(&mut list, ranks, tau, 0, [1, 2], chances, 1.0);
        let spread = list.scratch("variances", Size::Planes(1));
        variance::record(&mut list, tau, spread);
        mask::record(&mut list, spread, threshold, tau);
        clip::record(&mut list, tau, 0.5);
    }
    let weights = list.floats("weights", &vec![0.5; experts.max(1) as usize]);
    elect::record(&mut list, weights, 1.0, true, true, tau);
    consensus::record(&mut list, weights, 0.4, 1, 1.0, tau);
    let parts = list.table("parts", experts + 1, &vec![0.5; 4096 * (experts as usize + 1)]);
    for (unit, along) in [(4, Along::Rows), (3, Along::Rows), (1, Along::Columns)] {
        blend::record(&mut list, inputs[0], parts, tau, unit, along);
    }
    combine::record(&mut list, inputs[0], weights, 0.3, tau);
    differences(&mut list);
    let stats = list.result("stats", norms::size(experts + 1));
    let (unexplained, xi) = (list.scratch("residual", Size::Rows(1)), list.result("xi", Size::Rows(1)));
    norms::record(&mut list, tau, stats);
    residual::record(&mut list, tau, stats, unexplained);
    let rule = Factor { rule: Rule::Mixed, bounds: Bounds::NONE, strength: Strength::FULL };
    factor::record(&mut list, rule, stats, unexplained, xi);
    let (counts, one) = (list.result("counts", Size::Fixed(rescale::COUNTS)), list.floats("one", &[1.0]));
    for (out, factors) in [(dtype, xi), (Dtype::F32, one)] {
        let out = list.result("out", Size::Stored(out));
        rescale::record(&mut list, inputs[0], tau, factors, out, counts);
    }
    let merged = list.result("merged", Size::Planes(1));
    scale::record(&mut list, tau, xi, merged);
    list
}

fn built(recording: &Recording, row_len: u32, n: u32, device: Device) -> Vec<Built> {
    let extent = Extent { first_row: 0, rows: n.div_ceil(row_len), row_len, n };
    let launches = program(recording, &extent, device, 0);
    launches
        .into_iter()
        .filter_map(|launch| if let Run::Built(built) = launch.run { Some(built) } else { None })
        .collect()
}

const GPU: Device = Device { buffers: 16, lanes: 128, alone: 0, group: 256, wide: false };
const SOFTWARE: Device = Device { buffers: 16, lanes: 8, alone: 2048, group: 8, wide: true };

#[test]
fn built_shaders_are_valid_and_translate_for_every_backend() {
    let types = [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64, Dtype::F8E4M3, Dtype::F8E5M2];
    let mut texts = HashSet::new();
    for (dtype, seen) in types.into_iter().flat_map(|dtype| [(dtype, false), (dtype, true)]) {
        for (row_len, n, experts) in [(4096, 8192, 3), (4096, 4099, 1), (173, 173 * 3, 2), (3, 12, 0)] {
            let list = all_quads(dtype, experts, seen);
            let hardware = built(&list, row_len, n, GPU);
            assert!(hardware.iter().all(|built| !built.text.contains("u64")), "not every device has them");
            let hardware = hardware.into_iter().map(|built| (built, Capabilities::empty()));
            let software =
                built(&list, row_len, n, SOFTWARE).into_iter().map(|built| (built, Capabilities::SHADER_INT64));
            for (built, own) in hardware.chain(software) {
                assert!(built.bindings() <= GPU.buffers, "{}", built.label);
                if texts.insert(built.text.clone()) {
                    let (module, info) = parse_text(&built.label, &built.text, own);
                    translate(&built.label, &module, &info);
                }
            }
        }
    }
    assert!(texts.len() > 100, "{}", texts.len());
}

/// A weighted sum of three experts, up to the statistics of its rows.
struct Linear {
    list: Recording,
    base: Buf,
    tau: Buf,
    stats: Buf,
    out: Buf,
    counts: Buf,
}

impl Linear {
    fn new() -> Self {
        let mut list = Recording::new(4);
        let inputs: Vec<_> = (0..4).map(|model| list.input("model", model, Dtype::BF16)).collect();
        let tau = list.scratch("tau", Size::Planes(4));
        (0..3).for_each(|k| delta::record(&mut list, inputs[0], inputs[k as usize + 1], tau, k));
        let weights = list.floats("weights", &[0.5; 3]);
        combine::record(&mut list, inputs[0], weights, 0.0, tau);
        let (out, counts) = (list.result("out", Size::Stored(Dtype::BF16)), list.result("counts", Size::Fixed(3)));
        let stats = list.result("stats", norms::size(4));
        norms::record(&mut list, tau, stats);
        Self { list, base: inputs[0], tau, stats, out, counts }
    }
}

#[test]
fn a_merge_never_has_its_stack_in_memory() {
    let Linear { mut list, base, tau, out, counts, .. } = Linear::new();
    let one = list.floats("one", &[1.0]);
    rescale::record(&mut list, base, tau, one, out, counts);
    let labels = |shaders: &[Built]| shaders.iter().map(|built| built.label.clone()).collect::<Vec<_>>();
    let shaders = built(&list, 1024, 4096, GPU);
    assert_eq!(labels(&shaders), ["delta+combine+norms+rescale"]);
    // The checksum is of what is stored there.
    assert_eq!(shaders[0].proved, [out]);
    // Rows of odd length begin within words.
    let odd = built(&list, 1023, 1023 * 4, GPU);
    assert_eq!(labels(&odd), ["delta+combine+norms", "delta+combine+rescale"]);
    assert!(shaders.iter().flat_map(|built| &built.buffers).all(|(buf, _)| *buf != tau));
    // Where a shader can see too few buffers, the stack is written, and read.
    let shaders = built(&list, 1024, 4096, Device { buffers: 4, ..GPU });
    assert_eq!(labels(&shaders), ["delta", "delta+combine", "norms", "rescale"]);
    // Two quads at a time, but where hardware would write planes with gaps.
    let pairs = |shaders: &[Built]| shaders.iter().map(|built| built.text.contains("j + 4u")).collect::<Vec<_>>();
    assert_eq!(pairs(&shaders), [false, false, true, true]);
    assert_eq!(pairs(&built(&list, 1024, 4096, Device { buffers: 4, ..SOFTWARE })), [true; 4]);
}

#[test]
fn a_calibrated_merge_is_one_launch() {
    let Linear { mut list, base, tau, stats, out, counts } = Linear::new();
    let (unexplained, xi) = (list.scratch("residual", Size::Rows(1)), list.result("xi", Size::Rows(1)));
    residual::record(&mut list, tau, stats, unexplained);
    let rule = Factor { rule: Rule::Mixed, bounds: Bounds::NONE, strength: Strength::FULL };
    factor::record(&mut list, rule, stats, unexplained, xi);
    rescale::record(&mut list, base, tau, xi, out, counts);
    let launches = |list: &Recording, row_len, device| {
        let shaders = built(list, row_len, row_len * 4, device);
        shaders.into_iter().map(|built| built.label).collect::<Vec<_>>()
    };
    for device in [GPU, SOFTWARE] {
        assert_eq!(launches(&list, 1024, device), ["delta+combine+norms+cross+residual+factor+rescale"]);
        // Rows of odd length begin within words.
        let odd = ["delta+combine+norms+cross+residual+factor", "delta+combine+rescale"];
        assert_eq!(launches(&list, 1023, device), odd);
    }
    // Who shares a row waits for the others; who has it alone does not.
    let waits = |device| built(&list, 1024, 4096, device)[0].text.contains("storageBarrier");
    assert_eq!([waits(GPU), waits(SOFTWARE)], [true, false]);
    // Planes that hardware is to write are gone over quad by quad.
    let merged = list.result("merged", Size::Planes(1));
    scale::record(&mut list, tau, xi, merged);
    assert_eq!(launches(&list, 1024, GPU).last().unwrap(), "delta+combine+scale");
    assert_eq!(launches(&list, 1024, SOFTWARE), ["delta+combine+norms+cross+residual+factor+rescale+scale"]);
}

#[test]
fn names_are_unique() {
    let names: HashSet<_> = ALL.iter().map(|kernel| kernel.name).collect();
    assert_eq!(names.len(), ALL.len());
}

#[test]
fn bindings_are_those_declared() {
    assert!(ALL.iter().all(|kernel| kernel.bindings.len() <= MAX_BINDINGS));
    for kernel in whole() {
        let (module, _) = parse(kernel);
        let mut bound = vec![None; 1 + kernel.bindings.len()];
        for (_, variable) in module.global_variables.iter() {
            let Some(at) = &variable.binding else { continue };
            assert_eq!(at.group, 0, "{}", kernel.name);
            let slot = bound.get_mut(at.binding as usize);
            let slot = slot.unwrap_or_else(|| panic!("{}: binding {} is not declared", kernel.name, at.binding));
            *slot = Some(variable.space);
        }
        assert_eq!(bound[0], Some(AddressSpace::Uniform), "{}", kernel.name);
        for (i, access) in kernel.bindings.iter().enumerate() {
            let Some(AddressSpace::Storage { access: found }) = bound[i + 1] else {
                panic!("{}: binding {} is no storage buffer", kernel.name, i + 1);
            };
            let written = found.contains(StorageAccess::STORE);
            assert_eq!(written, *access == Access::Write, "{}: binding {}", kernel.name, i + 1);
        }
    }
}

#[test]
fn uniforms_begin_with_the_dimensions() {
    for kernel in whole() {
        let (module, _) = parse(kernel);
        let uniform = module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform);
        let TypeInner::Struct { members, .. } = &module.types[uniform.unwrap().1.ty].inner else {
            panic!("{}: the uniform is no struct", kernel.name);
        };
        let head = &module.types[members[0].ty];
        let TypeInner::Struct { span, .. } = &head.inner else { panic!("{}: no Dims", kernel.name) };
        assert_eq!((head.name.as_deref(), members[0].offset, *span), (Some("Dims"), 0, 32), "{}", kernel.name);
        for (i, member) in members.iter().enumerate().skip(1) {
            let size = module.types[member.ty].inner.size(module.to_ctx());
            let next = members.get(i + 1).map_or(member.offset + size, |m| m.offset);
            assert_eq!(member.offset + size, next, "{}: a gap after {:?}", kernel.name, member.name);
        }
    }
}

#[test]
fn workgroups_and_constants_are_those_declared() {
    for kernel in whole() {
        let (module, _) = parse(kernel);
        let [entry] = &module.entry_points[..] else { panic!("{}: one entry point, please", kernel.name) };
        // Four subgroups, of 32 each on most hardware.
        let size = if cooperative(kernel.name) { 128 } else { WORKGROUP };
        assert_eq!((entry.name.as_str(), entry.workgroup_size), ("main", [size, 1, 1]), "{}", kernel.name);
        let name = |(_, constant): (_, &Override)| constant.name.clone().unwrap();
        let mut overrides: Vec<String> = module.overrides.iter().map(name).collect();
        let mut declared = kernel.constants.to_vec();
        overrides.sort_unstable();
        declared.sort_unstable();
        assert_eq!(overrides, declared, "{}", kernel.name);
    }
}
