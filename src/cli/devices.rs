//! The devices that a merge can run on.

use magic_merge::Result;
use magic_merge::gpu::{self, Adapter, Choice};
use serde_json::{Value, json};

use super::tables::{Column, table};
use super::text::{bytes, plural};

/// All GPUs, and which of them `--device auto` takes.
pub struct Devices {
    gpus: Vec<Adapter>,
    auto: Option<usize>,
    threads: usize,
}

impl Devices {
    /// Asks the drivers.
    pub fn list() -> Result<Self> {
        let gpus = gpu::adapter::list();
        let auto = gpu::adapter::choose(&gpus, &Choice::Auto)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { gpus, auto, threads })
    }

    /// A line for each, the CPU last.
    pub fn text(&self) -> String {
        let columns = [
            Column::Right("--device"),
            Column::Left("name"),
            Column::Left("type"),
            Column::Left("backend"),
            Column::Right("binding"),
            Column::Left(""),
        ];
        let auto = |taken: bool| if taken { "← auto" } else { "" }.to_owned();
        let mut rows: Vec<Vec<String>> = self
            .gpus
            .iter()
            .map(|gpu| {
                vec![
                    gpu.index.to_string(),
                    gpu.name.clone(),
                    gpu.class.name().to_owned(),
                    gpu.backend.to_owned(),
                    bytes(gpu.max_binding_bytes),
                    auto(self.auto == Some(gpu.index)),
                ]
            })
            .collect();
        let threads = format!("CPU, {}", plural(self.threads, "thread"));
        let cpu = ["cpu", &threads, "cpu", "Rust", "–", &auto(self.auto.is_none())];
        rows.push(cpu.map(str::to_owned).to_vec());
        table(&columns, rows)
    }

    /// The same as a document.
    pub fn document(&self) -> Value {
        json!({
            "schema": "magic-devices/1",
            "auto": self.auto.map_or(json!("cpu"), |index| json!(index)),
            "gpus": self.gpus,
            "cpu": {"threads": self.threads},
        })
    }
}
