//! Runs cases through the program, each command a process of its own, and holds each to what every case must keep:
//! no panic and no abort, at most a second of processor time and 256 MiB of memory, no control characters in what is
//! printed, no half of an output, and no look at the files that lie outside of the case.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::case::{Case, Want, floats_file};

/// Most processor time of a command.
const CPU: Duration = Duration::from_secs(1);
/// Address space of a command: an end to what goes wrong before the whole machine feels it.
const ADDRESSES: u64 = 2 << 30;
/// When a command is taken to hang, on a machine as busy as may be.
const HANGS: Duration = Duration::from_secs(60);
/// Longest text on stderr: a message that nobody reads to its end says nothing.
const LONGEST: usize = 6000;
/// What the files outside hold; no output may.
pub const CANARY: &str = "CANARY";

/// A folder for the cases, and one beside it that none of them may look into.
pub struct Ground {
    dir: tempfile::TempDir,
    watch: Watch,
    made: usize,
    /// The most that a command took.
    pub cpu: Duration,
    /// The most that a command took.
    pub memory: u64,
}

/// What a command did.
struct Done {
    status: ExitStatus,
    out: String,
    err: String,
    cpu: Duration,
    memory: u64,
}

impl Ground {
    /// Plants the canaries: a model with all that belongs to one, and an adapter.
    pub fn new() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let outside = dir.path().join("outside");
        let planted = [
            ("model.safetensors", floats_file(&[(CANARY, &[2, 3])])),
            ("adapter_model.safetensors", floats_file(&[(CANARY, &[2, 3])])),
            ("config.json", format!(r#"{{"model_type": "{CANARY}"}}"#).into()),
            ("adapter_config.json", format!(r#"{{"peft_type": "{CANARY}"}}"#).into()),
            ("tokenizer.json", format!(r#"{{"{CANARY}": 1}}"#).into()),
            ("preprocessor_config.json", format!(r#"{{"{CANARY}": 1}}"#).into()),
            ("tokenizer.model", CANARY.into()),
            ("secret.txt", CANARY.into()),
        ];
        fs::create_dir(&outside)?;
        for (name, bytes) in planted {
            fs::write(outside.join(name), bytes)?;
        }
        let watch = Watch::new(&outside)?;
        Ok(Self { dir, watch, made: 0, cpu: Duration::ZERO, memory: 0 })
    }

    /// The folder that no case may look into, as one that runs sees it.
    pub fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// What is wrong with `case`, if anything is.
    pub fn check(&mut self, case: &Case) -> Option<String> {
        self.made += 1;
        let place = self.dir.path().join(self.made.to_string());
        let dir = place.join("in");
        fs::create_dir_all(&dir).and_then(|()| case.make(&dir)).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let wrong = case.commands.iter().find_map(|words| self.run(&place, words, case).err());
        fs::remove_dir_all(&place).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        wrong.map(|wrong| format!("{}: {wrong}", case.name))
    }

    fn run(&mut self, place: &Path, words: &[String], case: &Case) -> Result<(), String> {
        let dir = place.join("in");
        let done = run(&dir, words, place).map_err(|e| e.to_string())?;
        let opened = self.watch.opened().map_err(|e| e.to_string())?;
        self.cpu = self.cpu.max(done.cpu);
        self.memory = self.memory.max(done.memory);
        let said = |what: String| Err(format!("`magic {}` {what}\n{}", words.join(" "), done.err));
        let code = match (done.status.code(), &case.want) {
            (None, _) => return said(format!("was ended by signal {:?}", done.status.signal())),
            (Some(code), Want::Accepted) if code != 0 => return said(format!("is refused with {code}")),
            (Some(code), Want::Refused(wanted, _)) if code != *wanted => return said(format!("ends with {code}")),
            (Some(code), _) => code,
        };
        if done.err.contains("panicked") {
            return said("panics".into());
        }
        if let Want::Refused(_, words) = &case.want {
            if !done.err.starts_with("error: ") && !done.err.contains("\nerror: ") {
                return said("gives no error".into());
            }
            if !done.err.contains(words.as_str()) {
                return said(format!("should say: {words}"));
            }
            if dir.join("out").exists() {
                return said("leaves an output".into());
            }
        }
        if done.err.len() > LONGEST {
            return said(format!("says {} bytes", done.err.len()));
        }
        if let Some(c) = done.err.chars().chain(done.out.chars()).find(|c| is_hostile(*c)) {
            return said(format!("prints {c:?}, and ends with {code}"));
        }
        if done.cpu > CPU {
            return said(format!("takes {:?}", done.cpu));
        }
        if done.memory > case.memory {
            return said(format!("takes {} MiB", done.memory >> 20));
        }
        if !opened.is_empty() {
            return said(format!("opens {opened:?} outside of its folder"));
        }
        if done.out.contains(CANARY) || done.err.contains(CANARY) || holds_canary(&dir.join("out")) {
            return said("copies what lies outside of its folder".into());
        }
        Ok(())
    }
}

fn is_hostile(c: char) -> bool {
    c.is_control() && c != '\n'
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn holds_canary(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files = entries.filter_map(|entry| fs::read(entry.path()).ok());
    files.any(|bytes| bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()))
}

fn run(dir: &Path, words: &[String], place: &Path) -> io::Result<Done> {
    let (out, err) = (place.join("stdout"), place.join("stderr"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_magic"));
    command.args(words).current_dir(dir).stdin(Stdio::null());
    command.stdout(File::create(&out)?).stderr(File::create(&err)?);
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE").env("RAYON_NUM_THREADS", "2");
    command.env("HF_HUB_CACHE", dir.join("cache"));
    let limit = || {
        let limit = libc::rlimit { rlim_cur: ADDRESSES, rlim_max: ADDRESSES };
        // SAFETY: the call reads one struct, and may be made between fork and exec.
        match unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    let child = unsafe { command.pre_exec(limit) }.spawn()?;
    let (status, usage) = wait(child.id() as libc::pid_t)?;
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Done {
        status,
        out: text(out)?,
        err: text(err)?,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        memory: usage.ru_maxrss as u64 * 1024,
    })
}

/// Waits for a process as `Child::wait` does, and learns what it took.
fn wait(pid: libc::pid_t) -> io::Result<(ExitStatus, libc::rusage)> {
    let begun = Instant::now();
    let mut killed = false;
    loop {
        let mut status = 0;
        // SAFETY: a struct of numbers, which zero is a value of.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live values of their types.
        match unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } {
            0 if begun.elapsed() > HANGS && !killed => {
                killed = true;
                // SAFETY: the process is ours and has not been waited for: the number is still its own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            0 => std::thread::sleep(Duration::from_millis(1)),
            -1 => return Err(io::Error::last_os_error()),
            _ if killed => return Err(io::Error::other(format!("hangs for {HANGS:?}"))),
            _ => return Ok((ExitStatus::from_raw(status), usage)),
        }
    }
}

/// The kernel's word on which files of a folder are opened, whoever opens them and by whatever path.
struct Watch(File);

impl Watch {
    fn new(dir: &Path) -> io::Result<Self> {
        use std::os::fd::FromRawFd;
        use std::os::unix::ffi::OsStrExt;
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: the path ends in a zero and lives through the call.
        match unsafe { libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_OPEN | libc::IN_ACCESS) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Self(file)),
        }
    }

    /// Names of what has been opened since the last call; empty for the folder itself.
    fn opened(&mut self) -> io::Result<Vec<String>> {
        const HEAD: usize = size_of::<libc::inotify_event>();
        let mut buffer = [0; 4096];
        let mut bytes = match self.0.read(&mut buffer) {
            Ok(read) => &buffer[..read],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => &[],
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        while bytes.len() >= HEAD {
            // The last word of a head is the length of the name behind it.
            let len = u32::from_ne_bytes(bytes[HEAD - 4..HEAD].try_into().expect("four bytes")) as usize;
            let name = bytes[HEAD..HEAD + len].split(|byte| *byte == 0).next().unwrap_or_default();
            names.push(String::from_utf8_lossy(name).into_owned());
            bytes = &bytes[HEAD + len..];
        }
        Ok(names)
    }
}

/// A canary that is opened is noticed, and one that is not is not.
#[test]
fn canaries_sing() {
    let mut ground = Ground::new().unwrap();
    assert_eq!(ground.watch.opened().unwrap(), Vec::<String>::new());
    fs::metadata(ground.outside().join("secret.txt")).unwrap();
    assert_eq!(ground.watch.opened().unwrap(), Vec::<String>::new());
    drop(File::open(ground.outside().join("secret.txt")).unwrap());
    assert_eq!(ground.watch.opened().unwrap(), ["secret.txt"]);
}
