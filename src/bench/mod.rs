//! How fast every kernel is, on a GPU and by its twin on the CPU: `magic bench`.
//!
//! A row of [`cases`] is run once and compared with the twin; only what is right is timed. Samples of the row and of a
//! plain copy are taken in turn. A GPU's own clock and the host's are kept apart. Rates are those of the bytes that
//! must be read and written, not of those that are.

pub mod case;
pub mod cases;
pub mod changes;
pub mod copy;
pub mod document;
pub mod host;
mod merges;
pub mod table;
pub mod target;
pub mod time;

mod check;
mod values;

pub use case::Case;
pub use check::{Expect, compare};
pub use document::{Device, Report, Row, Status};
pub use target::{Oracle, Target};
pub use time::Effort;
pub use values::{extent, store, values, words};

use self::case::{PLANES, STEP, title};
use self::cases::CASES;
use self::document::SCHEMA;
use self::host::Host;
use self::target::Prepared;
use self::time::{Figures, Sample};
use crate::error::{Error, Kind, Result, nearest};
use crate::gpu::{self, Choice, Class, Gpu, Matrices, adapter};
use crate::kernels::{ALL, matmul_coop};

/// Elements of the planes that hardware is timed on: a launch over one of them reads and writes 256 MiB and more.
const MOST: u32 = 64 << 20;

/// Elements of the planes that a GPU is checked on, at most: the twin computes them all.
const CHECKED: u32 = 2 << 20;

/// Elements that the threads of the CPU share out of their caches.
const LARGE: u32 = 4 << 20;

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `auto`, `cpu`, `gpu`, a number or a part of a name; `None` for all adapters and the CPU.
    pub device: Option<String>,
    /// Parts of kernel names; all kernels if there are none.
    pub filters: Vec<String>,
    /// Elements of a plane, where the default will not do.
    pub elements: Option<u32>,
    /// Fewer samples and smaller planes.
    pub quick: bool,
    /// Threads of the CPU.
    pub threads: Option<usize>,
    /// Bytes of device memory beyond which idle buffers are forgotten.
    pub vram: Option<u64>,
}

/// Told of each row before it is measured; an error ends the run.
pub type Watch<'a> = dyn FnMut(&Device, &Case) -> Result<()> + 'a;

/// Measures all that is asked for.
pub fn run(settings: &Settings, watch: &mut Watch<'_>) -> Result<Report> {
    let cases = settings.cases()?;
    settings.check()?;
    let host = Host::ask();
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        magic: env!("CARGO_PKG_VERSION").to_owned(),
        wgpu: host::wgpu(),
        time: host::now(),
        debug: cfg!(debug_assertions),
        quick: settings.quick,
        host,
        devices: Vec::new(),
        compared: None,
    };
    let options = gpu::Options {
        checks: false,
        timestamps: true,
        shared: false,
        matrices: Matrices::IfThere,
        staged: false,
        vram: settings.vram.unwrap_or(gpu::Options::default().vram),
    };
    let open = |choice: &Choice, watch: &mut Watch<'_>| match Gpu::open(choice, &options)? {
        Some(gpu) => settings.gpu(gpu, &cases, watch).map(Some),
        None => Ok(None),
    };
    match settings.device.as_deref() {
        Some("cpu") => report.devices = settings.cpu(&report.host, &cases, watch)?,
        Some(device) => match open(&Choice::parse(device), watch)? {
            Some(gpu) => report.devices.push(gpu),
            None => report.devices = settings.cpu(&report.host, &cases, watch)?,
        },
        None => {
            for adapter in adapter::list() {
                report.devices.push(match open(&Choice::Index(adapter.index), watch) {
                    Err(error) if error.kind() == Kind::Device => Device::closed(&adapter, &error),
                    measured => measured?.expect("an index is never auto"),
                });
            }
            report.devices.extend(settings.cpu(&report.host, &cases, watch)?);
            report.devices.sort_by_key(|device| (device.kind == "software", device.kind == "cpu"));
        }
    }
    Ok(report)
}

impl Settings {
    /// The copy, and the cases whose title has a filter in it.
    fn cases(&self) -> Result<Vec<&'static Case>> {
        let matches = |case: &Case, filter: &str| title(case.kernel, case.note).contains(filter);
        for filter in &self.filters {
            if !CASES.iter().any(|case| matches(case, filter)) {
                return Err(unknown(filter));
            }
        }
        let wanted = |case: &&Case| {
            self.filters.is_empty()
                || case.kernel == CASES[0].kernel
                || self.filters.iter().any(|filter| matches(case, filter))
        };
        Ok(CASES.iter().filter(wanted).collect())
    }

    fn check(&self) -> Result<()> {
        if self.threads == Some(0) {
            return Err(Error::usage("`--threads` must be at least 1").hint("without it, all cores are used"));
        }
        match self.elements {
            Some(n) if n == 0 || !n.is_multiple_of(STEP) || n > MOST => {
                Err(Error::usage(format!("`--elements {n}` is not a multiple of {STEP} up to {MOST}"))
                    .hint(format!("try `--elements {}`", n.clamp(STEP, MOST) / STEP * STEP)))
            }
            _ => Ok(()),
        }
    }

    fn effort(&self) -> Effort {
        if self.quick { Effort::QUICK } else { Effort::FULL }
    }

    /// One GPU. Hardware gets planes that fit no cache, and are worth more than the launch itself.
    fn gpu(&self, gpu: Gpu, cases: &[&Case], watch: &mut Watch<'_>) -> Result<Device> {
        let mut device = Device::gpu(&gpu);
        let most = (gpu.adapter().max_binding_bytes / (4 * u64::from(PLANES))) as u32 / STEP * STEP;
        let default = match (gpu.adapter().class, self.quick) {
            (Class::Software, true) => 64 << 10,
            (Class::Software, false) => 128 << 10,
            (_, true) => 2 << 20,
            // Others have less memory to themselves.
            (Class::Discrete, false) => MOST,
            (_, false) => 16 << 20,
        };
        let n = self.elements.unwrap_or(default).min(most);
        let oracle = Oracle::new(n.min(CHECKED));
        let target = Target::gpu(&oracle, n, gpu)?;
        if self.elements.is_some_and(|wanted| wanted > target.n) {
            log::warn!("`{}` takes planes of at most {} elements", device.name, target.n);
        }
        device.results = rows(&target, &oracle, cases, &self.effort(), &mut |case| watch(&device, case))?;
        Ok(device)
    }

    /// The CPU on one thread and on all, out of its caches and in them.
    fn cpu(&self, host: &Host, cases: &[&Case], watch: &mut Watch<'_>) -> Result<Vec<Device>> {
        let all = self.threads.unwrap_or(host.threads);
        let mut devices = Vec::new();
        for threads in if all == 1 { vec![1] } else { vec![1, all] } {
            let mut device = Device::cpu(host, threads);
            // Out of cache all threads together have as much as one alone.
            let large = ((LARGE / threads as u32) / STEP * STEP).max(STEP);
            let mut sizes = match (self.elements, self.quick) {
                (Some(n), _) => vec![n],
                (None, true) => vec![STEP],
                (None, false) => vec![large, STEP],
            };
            sizes.dedup();
            for n in sizes {
                let oracle = Oracle::new(n);
                let target = Target::cpu(&oracle, threads)?;
                let rows = rows(&target, &oracle, cases, &self.effort(), &mut |case| watch(&device, case))?;
                device.results.extend(rows);
            }
            devices.push(device);
        }
        Ok(devices)
    }
}

fn unknown(filter: &str) -> Error {
    let mut names: Vec<&str> = Vec::new();
    for case in CASES {
        if !names.contains(&case.kernel) {
            names.push(case.kernel);
        }
    }
    let error = Error::usage(format!("no row of the table has a name that contains `{filter}`"));
    let error = match nearest(filter, names.iter().copied()) {
        Some(name) => error.hint(format!("did you mean `{name}`?")),
        None => error,
    };
    error.hint(format!("the kernels are {}", names.join(", ")))
}

/// Checks and measures each of `cases`. What a device cannot do is a row that says so.
pub fn rows(
    target: &Target,
    oracle: &Oracle,
    cases: &[&Case],
    effort: &Effort,
    watch: &mut dyn FnMut(&Case) -> Result<()>,
) -> Result<Vec<Row>> {
    let copy = target.prepare(&CASES[0])?;
    let copies = time::rounds(effort, &mut |count| copy.look(count))?;
    let mut rows = Vec::new();
    for case in cases {
        watch(case)?;
        let mut row = Row::new(case, target);
        if let Some(side) = matmul_coop::side(case.kernel).filter(|side| !target.cooperative().contains(side)) {
            row.status = Status::Skipped;
            row.reason = format!("no cooperative matrices of {side} × {side}, f16 inputs and f32 sums");
        } else if let Err(error) = row.measure(case, target, oracle, (&copy, copies), effort) {
            row.status = Status::Error;
            row.reason = error.to_string();
        }
        rows.push(row);
    }
    Ok(rows)
}

/// SHA-256 of a kernel's own text.
fn wgsl(name: &str) -> String {
    let kernel = ALL.iter().find(|kernel| kernel.name == name);
    kernel.map_or_else(String::new, |kernel| kernel.wgsl_sha256())
}

impl Row {
    fn new(case: &Case, target: &Target) -> Self {
        let (n, blocks) = (target.n, target.blocks());
        Self {
            kernel: case.kernel.to_owned(),
            wgsl_sha256: wgsl(case.kernel),
            case: case.note.to_owned(),
            n,
            checked: 0,
            blocks,
            row_len: case.row_len,
            status: Status::Ok,
            reason: String::new(),
            check: target.expects(case.expect),
            bytes: None,
            flop: None,
            rounds: 0,
            timer: String::new(),
            gb_per_s: None,
            copy_gb_per_s: None,
            percent_of_copy: None,
            gflop_per_s: None,
            gpu: None,
            wall: None,
            from_f32: None,
            change: None,
        }
    }

    fn measure(
        &mut self,
        case: &Case,
        target: &Target,
        oracle: &Oracle,
        (copy, copies): (&Prepared<'_>, u32),
        effort: &Effort,
    ) -> Result<()> {
        let prepared = target.prepare(case)?;
        let (n, blocks) = (prepared.rounds.extent.n, target.blocks() as f64);
        let small = target.small(case);
        (self.n, self.checked) = (n, small.extent.n);
        self.bytes = (case.bytes > 0.0).then(|| case.bytes * f64::from(n) * blocks);
        self.flop = case.work.map(|work| work(n) * blocks);
        if let Err(what) = target.check(&small, case.expect, &oracle.run(&small))? {
            self.status = Status::Wrong;
            self.reason = what;
            return Ok(());
        }
        if matmul_coop::side(case.kernel).is_some() {
            let exact = target.small(&cases::SQUARE);
            self.from_f32 = target.distance(&small, &oracle.run(&exact))?;
        }
        self.rounds = time::rounds(effort, &mut |count| prepared.look(count))?;
        let (mut own, mut other) = (|| prepared.look(self.rounds), || copy.look(copies));
        if let Some(flop) = self.flop {
            let [samples] = time::samples(effort, [&mut own])?;
            self.gflop_per_s = rate(flop, self.take(&samples));
            return Ok(());
        }
        let [samples, copied] = time::samples(effort, [&mut own, &mut other])?;
        self.gb_per_s = self.bytes.and_then(|bytes| rate(bytes, self.take(&samples)));
        let copied = Figures::new(copied.iter().map(|s| if self.timer == "gpu" { s.best() } else { s.wall }));
        let bytes = CASES[0].bytes * f64::from(copy.rounds.extent.n) * blocks;
        self.copy_gb_per_s = rate(bytes, copied.median_ns);
        self.percent_of_copy = self.gb_per_s.zip(self.copy_gb_per_s).map(|(own, copy)| 100.0 * own / copy);
        Ok(())
    }

    /// Keeps the figures of `samples`, and returns the median that rates are taken from.
    fn take(&mut self, samples: &[Sample]) -> f64 {
        self.wall = Some(Figures::new(samples.iter().map(|sample| sample.wall)));
        // A clock that stood still once is not trusted.
        let gpu: Option<Vec<f64>> = samples.iter().map(|sample| sample.gpu).collect();
        self.gpu = gpu.map(|gpu| Figures::new(gpu.into_iter()));
        self.timer = if self.gpu.is_some() { "gpu" } else { "wall" }.to_owned();
        self.figures().map_or(0.0, |figures| figures.median_ns)
    }
}

/// Billions a second; nothing where so little was done that it drowned in noise.
fn rate(amount: f64, ns: f64) -> Option<f64> {
    (ns > 0.0).then(|| amount / ns)
}
