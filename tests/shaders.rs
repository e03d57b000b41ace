//! Every shader is valid, and is what its declaration says, with no GPU at hand.

use std::collections::HashSet;

use magic_merge::bench::copy::COPY;
use magic_merge::kernels::{ALL, Access, Kernel, WORKGROUP, source};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Override, StorageAccess, TypeInner};

/// Storage buffers that every device gives a kernel.
const MAX_BINDINGS: usize = 8;

fn parse(kernel: &Kernel) -> (Module, ModuleInfo) {
    let text = source(kernel);
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|e| panic!("{}: {}", kernel.name, e.emit_to_string_with_path(&text, kernel.name)));
    let info = validate(kernel, &module);
    (module, info)
}

fn validate(kernel: &Kernel, module: &Module) -> ModuleInfo {
    let capabilities = if cooperative(kernel) {
        Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP
    } else {
        Capabilities::empty()
    };
    Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(module)
        .unwrap_or_else(|e| panic!("{}: {e:?}", kernel.name))
}

/// Kernels that only `--fast-gemm` runs, and only on Vulkan and Metal.
fn cooperative(kernel: &Kernel) -> bool {
    kernel.wgsl.starts_with("enable ")
}

/// The module with every constant at `value`, as a driver gets it.
fn specialise(kernel: &Kernel, value: f64) -> (Module, ModuleInfo) {
    let (module, info) = parse(kernel);
    let constants = kernel.constants.iter().map(|name| ((*name).to_owned(), value)).collect();
    let entry = Some((naga::ShaderStage::Compute, kernel.entry));
    let (module, info) = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
        .unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
    (module.into_owned(), info.into_owned())
}

#[test]
fn shaders_are_valid_and_translate_for_every_backend() {
    for kernel in ALL.iter().copied().chain([&COPY]) {
        for value in [0.0, 1.0, 3.0] {
            let (module, info) = specialise(kernel, value);
            validate(kernel, &module);
            let spirv = naga::back::spv::write_vec(&module, &info, &Default::default(), None);
            spirv.unwrap_or_else(|e| panic!("{} for Vulkan: {e}", kernel.name));
            let options =
                naga::back::msl::Options { fake_missing_bindings: true, lang_version: (2, 4), ..Default::default() };
            let metal = naga::back::msl::write_string(&module, &info, &options, &Default::default());
            metal.unwrap_or_else(|e| panic!("{} for Metal: {e}", kernel.name));
            if cooperative(kernel) {
                continue;
            }
            let mut text = String::new();
            let options = naga::back::hlsl::Options { fake_missing_bindings: true, ..Default::default() };
            let defaults = Default::default();
            let dx12 = naga::back::hlsl::Writer::new(&mut text, &options, &defaults).write(&module, &info, None);
            dx12.unwrap_or_else(|e| panic!("{} for DX12: {e}", kernel.name));
        }
    }
}

#[test]
fn names_are_unique() {
    let names: HashSet<_> = ALL.iter().map(|kernel| kernel.name).collect();
    assert_eq!(names.len(), ALL.len());
}

#[test]
fn bindings_are_those_declared() {
    for kernel in ALL {
        assert!(kernel.bindings.len() <= MAX_BINDINGS, "{}", kernel.name);
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
    for kernel in ALL {
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
    for kernel in ALL {
        let (module, _) = parse(kernel);
        let [entry] = &module.entry_points[..] else { panic!("{}: one entry point, please", kernel.name) };
        assert_eq!((entry.name.as_str(), entry.workgroup_size), (kernel.entry, [WORKGROUP, 1, 1]), "{}", kernel.name);
        let name = |(_, constant): (_, &Override)| constant.name.clone().unwrap();
        let mut overrides: Vec<String> = module.overrides.iter().map(name).collect();
        let mut declared = kernel.constants.to_vec();
        overrides.sort_unstable();
        declared.sort_unstable();
        assert_eq!(overrides, declared, "{}", kernel.name);
    }
}
