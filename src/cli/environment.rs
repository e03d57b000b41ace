//! What the process asks of its surroundings.

/// Where there is no Wayland session, Mesa's device-selection layer complains about it on stderr each time that GPUs
/// are listed. `magic` chooses its device itself, so the layer is left out.
pub fn silence_wayland() {
    let set = |name| std::env::var_os(name).is_some();
    if cfg!(target_os = "linux") && !set("XDG_RUNTIME_DIR") && !set("MESA_VK_DEVICE_SELECT") {
        // SAFETY: `main` calls this first, when the process has one thread.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
