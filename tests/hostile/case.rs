//! One case: the files that it finds, the commands that are run among them, and what these must say.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// What all commands of a case must do.
#[derive(Clone, Debug)]
pub enum Want {
    /// End with 0.
    Accepted,
    /// End with this code and an error that holds these words.
    Refused(i32, String),
}

/// Something that lies in a case's folder.
pub enum Thing {
    /// A file.
    Bytes(Vec<u8>),
    /// A file of these bytes and zeros up to this length, which take no space.
    Sparse(Vec<u8>, u64),
    /// A file that is too large to be held in memory by the tests.
    Written(fn(&mut dyn Write) -> std::io::Result<()>),
    /// A symbolic link.
    Link(PathBuf),
    /// A pipe that nobody writes to.
    Pipe,
    /// An empty folder.
    Folder,
}

/// One case.
pub struct Case {
    /// Unique among all.
    pub name: String,
    /// What lies where, relative to the folder that the commands run in.
    pub things: Vec<(PathBuf, Thing)>,
    /// The commands, without the program's own name.
    pub commands: Vec<Vec<String>>,
    /// What they must do.
    pub want: Want,
    /// Most bytes of memory that each may take.
    pub memory: u64,
}

/// Most memory that any command may take.
const MEMORY: u64 = 256 << 20;

impl Case {
    /// A case without files that must be accepted.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), things: Vec::new(), commands: Vec::new(), want: Want::Accepted, memory: MEMORY }
    }

    /// With something at `path`.
    pub fn with(mut self, path: impl Into<PathBuf>, thing: Thing) -> Self {
        self.things.push((path.into(), thing));
        self
    }

    /// With a file at `path`.
    pub fn file(self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        self.with(path, Thing::Bytes(bytes.into()))
    }

    /// With a link at `path`.
    pub fn link(self, path: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        self.with(path, Thing::Link(to.into()))
    }

    /// With a command: its words.
    pub fn run(mut self, words: &[&str]) -> Self {
        self.commands.push(words.iter().map(|word| (*word).to_owned()).collect());
        self
    }

    /// To be refused with code 1 and these words.
    pub fn refused(self, words: impl Into<String>) -> Self {
        self.refused_with(1, words)
    }

    /// To be refused with this code and these words.
    pub fn refused_with(mut self, code: i32, words: impl Into<String>) -> Self {
        self.want = Want::Refused(code, words.into());
        self
    }

    /// Taking no more memory than this.
    pub fn within(self, memory: u64) -> Self {
        Self { memory, ..self }
    }

    /// Makes its files in `dir`.
    pub fn make(&self, dir: &Path) -> std::io::Result<()> {
        for (path, thing) in &self.things {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("a path in a folder"))?;
            match thing {
                Thing::Bytes(bytes) => fs::write(path, bytes)?,
                Thing::Sparse(bytes, len) => {
                    let mut file = File::create(path)?;
                    file.write_all(bytes)?;
                    file.set_len(*len)?;
                }
                Thing::Written(write) => {
                    let mut file = BufWriter::new(File::create(path)?);
                    write(&mut file)?;
                    file.flush()?;
                }
                Thing::Link(to) => std::os::unix::fs::symlink(to, path)?,
                Thing::Pipe => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status()?;
                    assert!(made.success(), "mkfifo {}", path.display());
                }
                Thing::Folder => fs::create_dir_all(path)?,
            }
        }
        Ok(())
    }
}

/// A safetensors file: the length of its header, the header, and `data` bytes that are not zero.
pub fn tensors_file(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, &vec![0x3d; data]].concat()
}

/// A safetensors file of F32 tensors that lie one after the other.
pub fn floats_file(tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let begin = end;
        end += 4 * shape.iter().product::<u64>();
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
        header.insert((*name).to_owned(), entry);
    }
    tensors_file(serde_json::Value::Object(header).to_string(), end as usize)
}
