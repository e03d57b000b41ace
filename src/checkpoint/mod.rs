//! Checkpoints on disk: read them in bounded pieces, write them so that no half of one is ever believed.

pub mod dtype;

mod coverage;
mod digest;
mod disk;
#[doc(hidden)]
pub mod faults;
pub(crate) mod files;
mod flush;
mod folder;
mod gather;
mod header;
mod hub;
mod index;
mod inputs;
mod journal;
mod json;
mod layout;
mod output;
mod parts;
pub(crate) mod quantized;
mod reader;
mod receipt;
mod side;
mod sink;
#[doc(hidden)]
pub mod target;
pub(crate) mod text;
mod torch;
mod writer;

pub use digest::{FileDigest, sha256};
pub use dtype::Dtype;
pub(crate) use folder::Folder;
pub(crate) use gather::GATHERED;
pub(crate) use inputs::Inputs;
pub use journal::Fingerprint;
pub(crate) use journal::{LAYOUT, difference, recorded};
pub(crate) use layout::INDEX;
pub use layout::{Layout, OutTensor};
pub use output::Access;
pub(crate) use output::{RECEIPT, REPORT, SCORES, finished, hold, temporary};
pub(crate) use parts::{
    FACTORS, PARTS, PLAN, create_folder, only_shared, put, read_document, remove, remove_parts, settle, take_back,
    work_folder, write_journal,
};
pub(crate) use reader::Overlay;
pub use reader::{Checkpoint, TensorInfo};
pub use receipt::FileRecord;
pub(crate) use receipt::{Finished, alone, check_file};
pub use side::{side_files, with_dtype};
pub use sink::Sink;
#[doc(hidden)]
pub use torch::pickled_names;
pub use writer::Writer;
