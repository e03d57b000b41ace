//! Archives as `torch.save` writes them, and how to spoil them.

/// An archive, and where its records are.
#[derive(Clone)]
pub struct Archive {
    pub bytes: Vec<u8>,
    pub locals: Vec<usize>,
    pub centrals: Vec<usize>,
    /// The end of 64 bits and its locator; where the end is, if there are none.
    pub end_64: usize,
    pub locator: usize,
    pub end: usize,
}

/// What kind of archive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As PyTorch does: lengths after each member, an end of 64 bits, members aligned to 64 bytes.
    Torch,
    /// As `zip -0` does: lengths before each member, an end of 32 bits.
    Plain,
    /// With all lengths in fields of 64 bits.
    Wide,
}

impl Archive {
    pub fn new(kind: Kind, members: &[(&str, &[u8])]) -> Self {
        let members: Vec<_> = members.iter().map(|(name, data)| (name.as_bytes(), *data)).collect();
        Self::raw(kind, &members)
    }

    pub fn raw(kind: Kind, members: &[(&[u8], &[u8])]) -> Self {
        let mut out = Self { bytes: vec![], locals: vec![], centrals: vec![], end_64: 0, locator: 0, end: 0 };
        let flags = if kind == Kind::Torch { 0x0808 } else { 0 };
        let wide = kind == Kind::Wide;
        for (name, data) in members {
            out.locals.push(out.bytes.len());
            let len = data.len() as u64;
            let mut extra = Vec::new();
            if kind == Kind::Torch {
                let room = 64 - (out.bytes.len() + 30 + name.len() + 4) % 64;
                put(&mut extra, 2, 0x4246);
                put(&mut extra, 2, room as u64);
                extra.resize(extra.len() + room, b'Z');
            } else if wide {
                extra = wide_field(&[len, len]);
            }
            out.bytes.extend(b"PK\x03\x04\0\0");
            put(&mut out.bytes, 2, flags);
            out.bytes.extend([0; 10]);
            let said = if kind == Kind::Torch { 0 } else { len };
            out.lengths(wide, said);
            put(&mut out.bytes, 2, name.len() as u64);
            put(&mut out.bytes, 2, extra.len() as u64);
            out.bytes.extend(*name);
            out.bytes.extend(extra);
            out.bytes.extend(*data);
            if kind == Kind::Torch {
                out.bytes.extend(b"PK\x07\x08\0\0\0\0");
                out.lengths(false, len);
            }
        }
        let begin = out.bytes.len() as u64;
        for ((name, data), local) in members.iter().zip(out.locals.clone()) {
            out.centrals.push(out.bytes.len());
            let len = data.len() as u64;
            out.bytes.extend(b"PK\x01\x02\0\0\0\0");
            put(&mut out.bytes, 2, flags);
            out.bytes.extend([0; 10]);
            out.lengths(wide, len);
            let extra = if wide { wide_field(&[len, len, local as u64]) } else { vec![] };
            put(&mut out.bytes, 2, name.len() as u64);
            put(&mut out.bytes, 2, extra.len() as u64);
            out.bytes.extend([0; 10]);
            put(&mut out.bytes, 4, if wide { 0xffff_ffff } else { local as u64 });
            out.bytes.extend(*name);
            out.bytes.extend(extra);
        }
        let (len, count) = (out.bytes.len() as u64 - begin, members.len() as u64);
        (out.end_64, out.locator) = (out.bytes.len(), out.bytes.len());
        if kind != Kind::Plain {
            out.bytes.extend(b"PK\x06\x06");
            put(&mut out.bytes, 8, 44);
            out.bytes.extend([0; 12]);
            [count, count, len, begin].into_iter().for_each(|number| put(&mut out.bytes, 8, number));
            out.locator = out.bytes.len();
            out.bytes.extend(b"PK\x06\x07\0\0\0\0");
            put(&mut out.bytes, 8, out.end_64 as u64);
            put(&mut out.bytes, 4, 1);
        }
        out.end = out.bytes.len();
        out.bytes.extend(b"PK\x05\x06\0\0\0\0");
        put(&mut out.bytes, 2, count);
        put(&mut out.bytes, 2, count);
        put(&mut out.bytes, 4, len);
        put(&mut out.bytes, 4, begin);
        out.bytes.extend([0; 2]);
        out
    }

    fn lengths(&mut self, wide: bool, len: u64) {
        for _ in 0..2 {
            put(&mut self.bytes, 4, if wide { 0xffff_ffff } else { len });
        }
    }

    /// The same with another number at `at`, of `width` bytes.
    pub fn with(mut self, at: usize, width: usize, number: u64) -> Self {
        self.bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        self
    }

    /// The same with another number in both headers of a member: at `local` in one, at `central` in the other.
    pub fn with_both(self, member: usize, (local, central): (usize, usize), width: usize, number: u64) -> Self {
        let (local, central) = (self.locals[member] + local, self.centrals[member] + central);
        self.with(local, width, number).with(central, width, number)
    }
}

fn put(bytes: &mut Vec<u8>, width: usize, number: u64) {
    bytes.extend(&number.to_le_bytes()[..width]);
}

/// The extra field that holds lengths of 64 bits.
pub fn wide_field(numbers: &[u64]) -> Vec<u8> {
    let mut field = Vec::new();
    put(&mut field, 2, 1);
    put(&mut field, 2, 8 * numbers.len() as u64);
    numbers.iter().for_each(|number| put(&mut field, 8, *number));
    field
}
