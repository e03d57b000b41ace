//! The power fails: what was not synced is lost, in part or in whole. The operations of a merge are recorded, and after
//! each of them the folder is put together as a disk might have it then.
//!
//! Assumed of a disk: what was synced lasts; a rename is done or not; a name may last before its bytes do.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use magic_merge::checkpoint::faults::{self, Operation};
use magic_merge::checkpoint::sha256;
use magic_merge::device::Wanted;
use magic_merge::job::{Job, Output};
use magic_merge::progress::Progress;
use magic_merge::recipe::Quick;

use super::common::{Sandbox, say};
use super::{Files, check_never_wrong, files};

enum Event {
    Create(String),
    SetLength(String, u64),
    Write(String, u64, Vec<u8>),
    Sync(String),
    Rename(String, String),
    Remove(String),
    SyncFolder,
}

/// What is recorded, and below which folder; reads of inputs are counted.
#[derive(Default)]
struct Recorder {
    below: PathBuf,
    events: Vec<Event>,
    reads: usize,
}

impl Recorder {
    fn see(&mut self, path: &Path, operation: &Operation<'_>) {
        let name = |path: &Path| path.file_name().expect("a file").to_str().expect("text").to_owned();
        self.reads += usize::from(matches!(operation, Operation::Read));
        if path == self.below && matches!(operation, Operation::SyncFolder) {
            self.events.push(Event::SyncFolder);
        }
        if path.parent() != Some(&self.below) {
            return;
        }
        let at = name(path);
        self.events.push(match operation {
            Operation::Create => Event::Create(at),
            Operation::SetLength(length) => Event::SetLength(at, *length),
            Operation::Write { offset, bytes, .. } => Event::Write(at, *offset, bytes.to_vec()),
            Operation::Sync => Event::Sync(at),
            Operation::Rename(to) => Event::Rename(at, name(to)),
            Operation::Remove => Event::Remove(at),
            _ => return,
        });
    }
}

/// A file as the system has it, and as the disk has it.
#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
}

/// A folder as the system has it, and as the disk has it.
#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// Names after each change since the last sync.
    since: Vec<BTreeMap<String, usize>>,
}

impl Disk {
    fn of(files: &Files) -> Self {
        let mut disk = Self::default();
        for (name, bytes) in files {
            disk.live.insert(name.clone(), disk.inodes.len());
            disk.inodes.push(Inode { live: bytes.clone(), durable: bytes.clone() });
        }
        disk.durable = disk.live.clone();
        disk
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(name) => {
                if !self.live.contains_key(name) {
                    self.live.insert(name.clone(), self.inodes.len());
                    self.inodes.push(Inode::default());
                }
            }
            Event::SetLength(name, length) => self.file(name).live.resize(*length as usize, 0),
            Event::Write(name, offset, bytes) => {
                let (file, offset) = (&mut self.file(name).live, *offset as usize);
                file.resize(file.len().max(offset + bytes.len()), 0);
                file[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Event::Sync(name) => {
                let file = self.file(name);
                file.durable = file.live.clone();
            }
            Event::Rename(from, to) => {
                let inode = self.live.remove(from).expect("what is renamed is there");
                self.live.insert(to.clone(), inode);
            }
            Event::Remove(name) => drop(self.live.remove(name)),
            Event::SyncFolder => {
                self.durable = self.live.clone();
                self.since.clear();
            }
        }
        self.since.push(self.live.clone());
    }

    fn file(&mut self, name: &str) -> &mut Inode {
        &mut self.inodes[self.live[name]]
    }

    /// What is there after the power has failed: names and bytes that were synced, or more of either.
    fn image(&self, kind: usize, random: &mut u64) -> Files {
        let mut random = |below: usize| {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*random >> 33) as usize % below
        };
        let names = match kind {
            0 | 2 => &self.durable,
            1 => &self.live,
            _ => match random(self.since.len() + 1) {
                0 => &self.durable,
                some => &self.since[some - 1],
            },
        };
        let mut bytes = |inode: &Inode| match kind {
            0 | 1 => inode.durable.clone(),
            2 => inode.live.clone(),
            _ => match random(3) {
                0 => inode.durable.clone(),
                1 => inode.live.clone(),
                // As long as it should be, and zeros from somewhere on.
                _ => {
                    let mut bytes = inode.live.clone();
                    let common = inode.durable.iter().zip(&inode.live).take_while(|(a, b)| a == b).count();
                    let from = common + random(bytes.len() - common + 1);
                    let kept = inode.durable.get(from..).unwrap_or_default().to_vec();
                    bytes[from..].fill(0);
                    bytes[from..from + kept.len()].copy_from_slice(&kept);
                    bytes
                }
            },
        };
        names.iter().map(|(name, inode)| (name.clone(), bytes(&self.inodes[*inode]))).collect()
    }
}

fn job(sandbox: &Sandbox, method: &str, params: &[&str]) -> Job {
    let path = |name: &str| sandbox.path(name).to_str().expect("text").to_owned();
    let quick = Quick {
        base: Some(path("base")),
        models: vec![path("a"), path("b")],
        method: Some(method.to_owned()),
        params: params.iter().map(|param| (*param).to_owned()).collect(),
        ..Quick::default()
    };
    let wanted = Wanted { device: "cpu".into(), threads: Some(1), ..Wanted::default() };
    Job::new(quick.recipe().expect("a recipe"), None, &wanted).expect("a merge")
}

/// Runs in a process of its own, which nothing but this watches.
#[test]
#[ignore = "run by power_loss, with a variable set"]
fn power_loss_child() {
    if std::env::var_os("MAGIC_TEST_COMMIT").is_none() {
        return;
    }
    let recorder = Arc::new(Mutex::new(None::<Recorder>));
    let watched = recorder.clone();
    assert!(faults::watch(Box::new(move |path, operation| -> io::Result<()> {
        watched.lock().unwrap().iter_mut().for_each(|recorder: &mut Recorder| recorder.see(path, operation));
        Ok(())
    })));
    let sandbox = Sandbox::new();
    let merge = job(&sandbox, "ties", &["density=0.5"]);
    let output = |dir: &str| Output {
        shard_size: 800,
        overwrite: dir != "fresh",
        resume: true,
        ..Output::new(sandbox.path(dir))
    };
    let mut images = 0;
    for dir in ["fresh", "replaced"] {
        // What was there before is a result of another method, in one file.
        let mut before = Files::new();
        if dir == "replaced" {
            let old = Output { shard_size: 1 << 30, ..output(dir) };
            job(&sandbox, "linear", &[]).run(&old, &Progress::default()).unwrap();
            before = raw(&output(dir).dir);
        }
        *recorder.lock().unwrap() = Some(Recorder { below: output(dir).dir, ..Recorder::default() });
        merge.run(&output(dir), &Progress::default()).unwrap();
        let recorded = recorder.lock().unwrap().take().unwrap();
        let wanted = files(&output(dir).dir);
        assert!(recorded.events.len() > 60 && recorded.reads > 15);
        let mut disk = Disk::of(&before);
        let (mut random, mut seen) = (1, HashSet::new());
        for (number, event) in recorded.events.iter().enumerate() {
            disk.apply(event);
            for kind in 0..14 {
                let image = disk.image(kind, &mut random);
                if !seen.insert(sha256(format!("{image:?}"))) {
                    continue;
                }
                images += 1;
                let what = format!("{dir}, image {kind} after operation {number}");
                let at = Output { dir: sandbox.path("image"), ..output(dir) };
                let _ = fs::remove_dir_all(&at.dir);
                fs::create_dir(&at.dir).unwrap();
                for (name, bytes) in &image {
                    fs::write(at.dir.join(name), bytes).unwrap();
                }
                check_never_wrong(&settled(&image), &wanted, &settled(&before), &what);
                if merge.done(&at).unwrap_or_else(|e| panic!("{what}: {e}")).is_none() {
                    merge.run(&at, &Progress::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
                }
                let found: Files = files(&at.dir).into_iter().filter(|(name, _)| name != ".magic.lock").collect();
                assert!(found == wanted, "{what}: {:?}", found.keys());
            }
        }
    }
    assert!(images >= 200, "{images}");
    say(&format!("crash: the power failed {images} times, all resumed to the same bytes"));
    // What is recorded is not read again, but for the receipt's digests.
    let at = output("fresh");
    let count = |merge: &Job| {
        *recorder.lock().unwrap() = Some(Recorder::default());
        merge.run(&at, &Progress::default()).unwrap();
        recorder.lock().unwrap().take().unwrap().reads
    };
    let journal = at.dir.join(".magic.journal");
    fs::remove_dir_all(&at.dir).unwrap();
    let all = count(&merge);
    // The same folder as a merge leaves it that ends as files get their names.
    let whole = raw(&at.dir);
    fs::remove_dir_all(&at.dir).unwrap();
    *recorder.lock().unwrap() = Some(Recorder { below: at.dir.clone(), ..Recorder::default() });
    merge.run(&at, &Progress::default()).unwrap();
    let mut disk = Disk::default();
    for event in recorder.lock().unwrap().take().unwrap().events {
        if matches!(&event, Event::Remove(name) if name == ".magic.journal") {
            break;
        }
        disk.apply(&event);
    }
    fs::write(journal, &disk.inodes[disk.live[".magic.journal"]].live).unwrap();
    let digests = count(&merge);
    assert!(all > 15 && digests < all / 2 && digests >= 3, "{all} reads, and {digests} without computing");
    assert_eq!(raw(&at.dir).keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
}

/// Files as they are.
fn raw(dir: &Path) -> Files {
    let entry = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    fs::read_dir(dir).unwrap().flatten().map(entry).collect()
}

/// `image` as [`files`] would read it.
fn settled(image: &Files) -> Files {
    image.iter().map(|(name, bytes)| (name.clone(), super::timeless(name, bytes.clone()))).collect()
}

#[test]
fn power_loss() {
    let exe = std::env::current_exe().expect("this test has a name");
    let mut command = Command::new(exe);
    command
        .args(["power::power_loss_child", "--exact", "--ignored", "--nocapture"])
        .env("MAGIC_TEST_COMMIT", "at-once");
    if Path::new("/dev/shm").is_dir() {
        command.env("TMPDIR", "/dev/shm"); // where a sync costs nothing
    }
    let run = command.output().expect("the test starts");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stdout));
    said.lines().filter(|line| line.starts_with("crash:")).for_each(say);
}
