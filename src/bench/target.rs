//! What is measured: a GPU, or some threads of the CPU, with models loaded; and the oracle beside it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::case::{Case, PLANES, Rounds, STEP};
use super::check::{Expect, compare};
use super::time::Sample;
use super::values::{store, values};
use crate::checkpoint::Dtype;
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::gpu::{DeviceInputs, Gpu, MAX_BINDING, Timer};
use crate::recording::Results;

/// Stored models of `n` elements: each plane in bf16, then each in f32. `n` is even.
fn models(n: u32) -> Vec<Vec<u32>> {
    let stored = |dtype, seed| bytemuck::pod_collect_to_vec(&store(dtype, &values(n as usize, 0.1, seed)));
    let planes = 0..u64::from(PLANES);
    planes.clone().map(|k| stored(Dtype::BF16, k)).chain(planes.map(|k| stored(Dtype::F32, 10 + k))).collect()
}

/// The twins, whose results are right.
pub struct Oracle {
    n: u32,
    models: Vec<Vec<u32>>,
}

impl Oracle {
    /// Models of `n` elements.
    pub fn new(n: u32) -> Self {
        Self { n, models: models(n) }
    }

    /// Results of one round.
    pub fn run(&self, rounds: &Rounds) -> Results {
        let mut results = Results::default();
        Cpu::default().run(&rounds.list, &rounds.extent, &self.models, &mut results);
        results
    }
}

enum Engine {
    Cpu {
        cpu: Cpu,
        workers: Vec<Worker>,
    },
    Gpu {
        gpu: Box<Gpu>,
        /// Planes that are timed.
        inputs: DeviceInputs,
        /// Planes that are checked.
        small: DeviceInputs,
    },
}

/// A thread with a block of its own. In a pool of one, a twin that would share its work out has nobody to wait for; in one
/// pool, who waits for another thread could be what that one waits for.
struct Worker {
    pool: rayon::ThreadPool,
    block: Mutex<Block>,
}

/// What a thread works on.
struct Block {
    models: Vec<Vec<u32>>,
    results: Results,
}

/// Lets each of the `workers` do `work`, all at a time.
fn each<T: Send>(workers: &[Worker], work: impl Fn(&mut Block) -> T + Sync) -> Vec<T> {
    let own = |worker: &Worker| {
        worker.pool.install(|| work(&mut worker.block.lock().unwrap_or_else(PoisonError::into_inner)))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.iter().map(|worker| scope.spawn(|| own(worker))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a twin does not panic")).collect()
    })
}

/// A device with models loaded.
pub struct Target {
    /// Elements of a plane that is timed.
    pub n: u32,
    /// Elements of a plane that is checked.
    checked: u32,
    /// Bytes of the largest buffer that a kernel sees.
    most: u64,
    engine: Engine,
}

impl Target {
    /// So many threads of the CPU, each with a block of its own, as in a merge.
    pub fn cpu(oracle: &Oracle, threads: usize) -> Result<Self> {
        let worker = |_| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
            let pool = pool.map_err(|e| Error::device(format!("cannot start {threads} threads: {e}")))?;
            let block = Block { models: oracle.models.clone(), results: Results::default() };
            Ok(Worker { pool, block: Mutex::new(block) })
        };
        let workers = (0..threads).map(worker).collect::<Result<_>>()?;
        let engine = Engine::Cpu { cpu: Cpu::default(), workers };
        Ok(Self { n: oracle.n, checked: oracle.n, most: MAX_BINDING, engine })
    }

    /// A GPU, where planes of `n` elements are timed, or of fewer if it has no room: those of the oracle, again and again.
    pub fn gpu(oracle: &Oracle, n: u32, gpu: Gpu) -> Result<Self> {
        let load = |n: u32| {
            let bytes = |words: &Vec<u32>| 4 * words.len() * n as usize / oracle.n as usize;
            // 3 bytes more: unlike sizes keep the executor from computing samples of each block again.
            let sizes: Vec<usize> = oracle.models.iter().map(bytes).chain([3]).collect();
            gpu.load(&sizes, &mut |model, offset, out| {
                let Some(words) = oracle.models.get(model) else { return Ok(()) };
                repeat(bytemuck::cast_slice(words), offset as usize, out);
                Ok(())
            })
        };
        let small = load(oracle.n)?;
        let (mut n, mut inputs) = (n, load(n));
        while inputs.is_err() && n > oracle.n {
            n = (n / 4 / STEP * STEP).max(oracle.n);
            inputs = load(n);
        }
        let (checked, most) = (oracle.n, gpu.adapter().max_binding_bytes);
        Ok(Self { n, checked, most, engine: Engine::Gpu { inputs: inputs?, gpu: Box::new(gpu), small } })
    }

    /// A case as it is checked.
    pub fn small(&self, case: &Case) -> Rounds {
        case.record(self.checked, self.most)
    }

    /// Blocks that are in work at a time.
    pub fn blocks(&self) -> usize {
        match &self.engine {
            Engine::Cpu { workers, .. } => workers.len(),
            Engine::Gpu { .. } => 1,
        }
    }

    /// A driver that computes on the CPU.
    pub fn is_software(&self) -> bool {
        matches!(&self.engine, Engine::Gpu { gpu, .. } if gpu.adapter().is_software())
    }

    /// Sides of the cooperative matrices that it has.
    pub fn cooperative(&self) -> &[u32] {
        match &self.engine {
            Engine::Cpu { .. } => &[],
            Engine::Gpu { gpu, .. } => gpu.cooperative(),
        }
    }

    /// What [`Target::check`] asks of results, in words.
    pub fn expects(&self, expect: Expect) -> String {
        match (&self.engine, expect) {
            (Engine::Cpu { .. }, _) => "the same bits from every thread".to_owned(),
            (_, Expect::Bits) => "the twin's bits".to_owned(),
            (_, Expect::Floats { atol, rtol }) => format!("within {atol:e} + {rtol:e} |x| of the twin"),
            (_, Expect::Stored { ulps, .. }) => format!("within {ulps} ulp of the twin"),
        }
    }

    /// Runs one round, and says where its results are not those of the oracle. What the twins compute themselves must be
    /// the same bits in every block.
    pub fn check(&self, rounds: &Rounds, expect: Expect, wanted: &Results) -> Result<std::result::Result<(), String>> {
        let compare = |found: &Results, expect| {
            for (i, (_, buffer)) in rounds.list.results().enumerate() {
                let n = rounds.extent.n as usize;
                compare(buffer.size, n, &found.buffers[i], &wanted.buffers[i], expect)
                    .map_err(|what| format!("result {i}: {what}"))?;
            }
            Ok(())
        };
        match &self.engine {
            Engine::Cpu { cpu, workers } => {
                let outcomes = each(workers, |block| {
                    cpu.run(&rounds.list, &rounds.extent, &block.models, &mut block.results);
                    compare(&block.results, Expect::Bits)
                });
                Ok(outcomes.into_iter().collect())
            }
            Engine::Gpu { gpu, small, .. } => {
                let mut found = Results::default();
                gpu.run(&rounds.list, &rounds.extent, small, &mut found)?;
                Ok(compare(&found, expect))
            }
        }
    }

    /// ‖a − b‖ / ‖b‖ of the first result of one round on a GPU and `other`.
    pub fn distance(&self, rounds: &Rounds, other: &Results) -> Result<Option<f64>> {
        let Engine::Gpu { gpu, small, .. } = &self.engine else { return Ok(None) };
        let mut found = Results::default();
        gpu.run(&rounds.list, &rounds.extent, small, &mut found)?;
        let pairs = || found.floats(0).iter().zip(other.floats(0)).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let (off, size): (f64, f64) = (pairs().map(|(a, b)| (a - b).powi(2)).sum(), pairs().map(|(_, b)| b * b).sum());
        Ok(Some((off / size).sqrt()))
    }

    /// Makes a case ready to be timed; on the planes that are checked, where there is no room for larger ones.
    pub fn prepare(&self, case: &Case) -> Result<Prepared<'_>> {
        let rounds = case.record(self.n, self.most);
        let Engine::Gpu { gpu, inputs, small } = &self.engine else {
            return Ok(Prepared { target: self, rounds, timer: None });
        };
        let timer = |rounds: &Rounds, inputs| gpu.timer(&rounds.list, &rounds.extent, inputs, rounds.first).map(Some);
        match timer(&rounds, inputs) {
            Err(_) if self.n > self.checked => {
                let rounds = self.small(case);
                Ok(Prepared { target: self, timer: timer(&rounds, small)?, rounds })
            }
            timer => Ok(Prepared { target: self, timer: timer?, rounds }),
        }
    }
}

/// What stands at `offset` of `bytes` that are repeated for ever.
fn repeat(bytes: &[u8], offset: usize, out: &mut [u8]) {
    let (mut from, mut filled) = (offset % bytes.len(), 0);
    while filled < out.len() {
        let len = (bytes.len() - from).min(out.len() - filled);
        out[filled..][..len].copy_from_slice(&bytes[from..][..len]);
        (from, filled) = (0, filled + len);
    }
}

/// Returns when all have come. They stay awake, so that none has to be woken when the clock runs.
fn meet(waiting: &AtomicUsize) {
    waiting.fetch_sub(1, Ordering::AcqRel);
    while waiting.load(Ordering::Acquire) > 0 {
        std::thread::yield_now();
    }
}

/// A case that is ready to be timed.
pub struct Prepared<'a> {
    target: &'a Target,
    /// What is run.
    pub rounds: Rounds,
    timer: Option<Timer>,
}

impl Prepared<'_> {
    /// One look at `count` rounds.
    pub fn look(&self, count: u32) -> Result<Sample> {
        match (&self.target.engine, &self.timer) {
            (Engine::Gpu { gpu, .. }, Some(timer)) => {
                // What comes with every submission cancels out of the difference. A pass by the device's clock has nothing of it.
                let (many, one) = (timer.time(gpu, count + 1)?, timer.time(gpu, 1)?);
                let wall = (many.wall.as_secs_f64() - one.wall.as_secs_f64()) / f64::from(count);
                Ok(Sample { wall, gpu: many.gpu.map(|time| time.as_secs_f64() / f64::from(count + 1)) })
            }
            (Engine::Cpu { cpu, workers }, _) => {
                let waiting = AtomicUsize::new(workers.len());
                let spans = each(workers, |block| {
                    let Rounds { list, first, extent } = &self.rounds;
                    cpu.time(list, extent, &block.models, &mut block.results, (*first, count), || meet(&waiting))
                });
                let (begin, end) = (spans.iter().map(|span| span[0]).min(), spans.iter().map(|span| span[1]).max());
                let passed = end.zip(begin).map_or(0.0, |(end, begin)| end.duration_since(begin).as_secs_f64());
                Ok(Sample { wall: passed / f64::from(count), gpu: None })
            }
            (Engine::Gpu { .. }, None) => unreachable!("a GPU gives a timer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_nobody_to_share_their_work_with() {
        let target = Target::cpu(&Oracle::new(1024), 3).unwrap();
        let Engine::Cpu { workers, .. } = &target.engine else { unreachable!("a target of the CPU") };
        let waiting = AtomicUsize::new(3);
        let work = |_: &mut Block| {
            meet(&waiting); // all at a time, or for ever
            rayon::current_num_threads()
        };
        assert_eq!(each(workers, work), [1, 1, 1]);
    }
}
