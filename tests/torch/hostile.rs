//! Files that are wrong, each in one way: archives, pickles, and what pickles say of tensors and models.

use crate::archive::{Archive, Kind, wide_field};
use crate::pickle::{
    Code, call, dict, global, int, list, module, named, none, numbers, object, over, pickle, storage, tensor, text,
    tuple,
};

/// A file, and a part of what must be said of it.
pub struct Case {
    pub what: String,
    pub bytes: Vec<u8>,
    pub says: String,
}

pub fn cases() -> Vec<Case> {
    let mut cases = archives();
    let mut pickled = |what: &str, pickle: Code, says: &str| {
        let bytes = file(&pickle).bytes;
        cases.push(Case { what: what.to_owned(), bytes, says: says.to_owned() });
    };
    pickles(&mut pickled);
    bombs(&mut pickled);
    tensors(&mut |what, tensor, says| {
        let says = format!("tensor `w` {says}");
        pickled(what, pickle(&named(&[("good", floats()), ("w", tensor)])), &says);
    });
    models(&mut |what, model, says| pickled(what, pickle(&model), says));
    cases
}

/// A tensor that is right.
fn floats() -> Code {
    tensor("FloatStorage", "0", &[2, 3])
}

fn state() -> Code {
    named(&[("a", floats())])
}

const STORAGE: [u8; 24] = [1; 24];

fn file(pickle: &[u8]) -> Archive {
    let members = [("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", &STORAGE), ("m/version", b"3\n")];
    Archive::new(Kind::Torch, &members)
}

/// Archives. Offsets are those of the fields in headers: local, of the directory, of both ends.
fn archives() -> Vec<Case> {
    let code = pickle(&state());
    let good = file(&code);
    let plain = Archive::new(Kind::Plain, &[("m/data.pkl", &code), ("m/data/0", &STORAGE)]);
    let wide = Archive::new(Kind::Wide, &[("m/data.pkl", &code), ("m/data/0", &STORAGE)]);
    let mut cases: Vec<(&str, Vec<u8>, &str)> = Vec::new();
    let mut add = |what, archive: Archive, says| cases.push((what, archive.bytes, says));

    let at = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut archive = good.clone();
        change(&mut archive.bytes);
        archive
    };
    let len = good.bytes.len();
    add("the last byte is missing", at(&|b| b.truncate(len - 1)), "directory does not end the file");
    add("half is missing", at(&|b| b.truncate(len / 2)), "directory does not end the file");
    add("21 bytes", at(&|b| b.truncate(21)), "too short");
    add("four bytes", at(&|b| b.truncate(4)), "too short");
    add("a byte follows", at(&|b| b.push(0)), "directory does not end the file");
    add("a byte before", at(&|b| b.insert(0, 0)), "no safetensors header");
    let (central, end) = (good.centrals[0], good.end);
    add("a second directory", at(&|b| b.extend(b.clone().split_off(central))), "64 bits is not where it should be");
    let second = |b: &mut Vec<u8>| {
        let copy = [&b[central..good.end_64], &b[end..]].concat();
        let begin = b.len() as u32;
        b.extend(copy);
        let at = b.len() - 6;
        b[at..at + 4].copy_from_slice(&begin.to_le_bytes());
    };
    add("a second directory, and what leads there", at(&second), "bytes between its members");
    add("a second archive", at(&|b| b.extend(b.clone())), "64 bits is not where it should be");

    let end = |at, width, number| good.clone().with(good.end + at, width, number);
    add("no end", end(0, 1, 0), "directory does not end the file");
    add("a comment that is not there", end(20, 2, 5), "has a comment");
    add("another disk", end(4, 2, 1), "a part of several");
    add("a directory on another disk", end(6, 2, 1), "a part of several");
    add("fewer members on this disk", end(8, 2, 3), "a part of several");
    add("another number of members", end(8, 4, 0x0005_0005), "two ends disagree");
    add("another length of the directory", end(12, 4, 7), "two ends disagree");
    add("another place of the directory", end(16, 4, 7), "two ends disagree");
    add("a narrow end that says nothing", end(12, 4, 0xffff_ffff), "two ends disagree");
    let end = |at, width, number| plain.clone().with(plain.end + at, width, number);
    add("one member more", end(8, 4, 0x0003_0003), "2 members, where 3 should be");
    add("one member less", end(8, 4, 0x0001_0001), "2 members, where 1 should be");
    add("a longer directory", end(12, 4, 1 << 31), "not right before its end");
    add("a shorter directory", end(12, 4, 7), "not right before its end");
    add("a directory far away", end(16, 4, 0xffff_fff0), "not right before its end");
    add("64 bits without their end", end(12, 8, u64::MAX), "not right before its end");
    let end = |at, width, number| good.clone().with(good.end_64 + at, width, number);
    add("a bad end of 64 bits", end(0, 1, 0), "end of 64 bits is not where");
    add("a long end of 64 bits", end(4, 8, 1 << 40), "has another length");
    add("a disk of 64 bits", end(16, 4, 9), "a part of several");
    let many = |number: u64| end(24, 8, number).with(good.end_64 + 32, 8, number).with(good.end + 8, 4, 0xffff_ffff);
    add("very many members", many(1 << 60), "1152921504606846976 members");
    add("many members", many(1 << 20), "1048576 members");
    let huge = end(40, 8, 1 << 62).with(good.end + 12, 4, 0xffff_ffff);
    add("a huge directory", huge, "not right before its end");
    let wrapped = end(40, 8, u64::MAX).with(good.end + 12, 4, 0xffff_ffff);
    add("a directory around the end of numbers", wrapped, "not right before its end");
    add("a locator that lies", good.clone().with(good.locator + 8, 8, 7), "64 bits is not where it should be");
    add("a locator to beyond", good.clone().with(good.locator + 8, 8, u64::MAX), "64 bits is not where it should be");
    add("a locator of several disks", good.clone().with(good.locator + 16, 4, 2), "64 bits is not where it should be");

    let central = |at, width, number| good.clone().with(good.centrals[2] + at, width, number);
    add("no header of the directory", central(0, 1, 0), "a header of its directory");
    add("a member on another disk", central(34, 2, 1), "a part of several");
    add("a member elsewhere", central(42, 4, good.locals[2] as u64 + 1), "bytes between its members");
    add("a member beyond the end", central(42, 4, 1 << 30), "bytes between its members");
    add("a member in the directory", central(42, 4, good.centrals[0] as u64), "bytes between its members");
    add("a member over another", central(42, 4, good.locals[1] as u64), "overlaps what comes after it");
    add("a header longer than the directory", central(28, 2, 60_000), "a header is cut off");
    add("a longer member", central(20, 8, 25 | 25 << 32), "bytes between its members");
    add("a shorter member", central(20, 8, 23 | 23 << 32), "bytes between its members");
    add("a member as long as the next", central(20, 8, 120 | 120 << 32), "overlaps what comes after it");
    add("a member longer than the file", central(20, 8, 0x7fff_ffff_7fff_ffff), "overlaps what comes after it");
    add("a packed length", central(20, 4, 23), "stored in another length");
    add("64 bits without their field", central(20, 4, 0xffff_ffff), "length of 64 bits is missing");
    let both = |local, central, width, number| good.clone().with_both(2, (local, central), width, number);
    add("a compressed member", both(8, 10, 2, 8), "`m/data/0` is compressed");
    add("an encrypted member", both(6, 8, 2, 0x809), "`m/data/0` is encrypted");
    add("a strongly encrypted member", both(6, 8, 2, 0x848), "is encrypted");
    add("hidden headers", both(6, 8, 2, 0x2808), "is encrypted");
    add("a patch", both(6, 8, 2, 0x828), "is compressed");
    let local = |at, width, number| good.clone().with(good.locals[2] + at, width, number);
    add("no local header", local(0, 1, 0), "a member is not where");
    add("another method", local(8, 2, 8), "two headers of `m/data/0` disagree");
    add("other flags", local(6, 2, 0), "two headers of `m/data/0` disagree");
    add("another name", local(30, 1, b'n'.into()), "two headers of `m/data/0` disagree");
    add("another length", local(18, 8, 9 | 9 << 32), "two headers of `m/data/0` disagree");
    add("a longer name", local(26, 2, 9), "a header is cut off");
    add("a long extra field", local(28, 2, 500), "a header is cut off");
    add("a very long extra field", local(28, 2, 65_000), "a header is cut off");
    let gap = |at, number| {
        let from = good.locals[3] - 16;
        good.clone().with(from + at, 4, number)
    };
    add("no description", gap(0, 0), "a description is not where");
    add("a description of another length", gap(12, 23), "describes none");
    let tail = |archive: &Archive| {
        let mut archive = archive.clone();
        archive.bytes.splice(archive.centrals[0]..archive.centrals[0], *b"12345678");
        archive.with(plain.end + 8 + 16, 4, plain.centrals[0] as u64 + 8)
    };
    add("bytes before the directory", tail(&plain), "bytes between its members");
    // Lengths of 64 bits: the field is at the end of each header.
    let central = |from_end: usize, width, number| wide.clone().with(wide.end_64 - from_end, width, number);
    add("a wide member beyond all numbers", central(24, 8, u64::MAX), "stored in another length");
    let lies = central(24, 8, u64::MAX).with(wide.end_64 - 16, 8, u64::MAX);
    add("a wide member around the end of numbers", lies, "two headers of `m/data/0` disagree");
    add("a wide member elsewhere", central(8, 8, u64::MAX), "lies outside the archive");
    add("a field that is too short", central(26, 2, 23), "a header is cut off");
    add("another field", central(28, 2, 2), "length of 64 bits is missing");
    let local = wide.locals[1] + 30 + "m/data/0".len();
    add("a local field that lies", wide.clone().with(local + 4, 8, 23), "two headers of `m/data/0` disagree");
    let mut two = Archive::new(Kind::Plain, &[("m/data.pkl", &code)]);
    let fields = [wide_field(&[]), wide_field(&[])].concat();
    two.bytes.splice(two.end..two.end, fields.iter().copied());
    let two =
        two.clone().with(two.centrals[0] + 30, 2, 8).with(two.end + 8 + 12, 4, (two.end - two.centrals[0]) as u64 + 8);
    add("two fields", two, "two lengths of 64 bits");

    // Names.
    let long = "x".repeat(2000);
    for (what, name, says) in [
        ("a way out", "../x", "leads out of the archive"),
        ("a way out within", "m/../../x", "leads out of the archive"),
        ("an absolute name", "/etc/passwd", "leads out of the archive"),
        ("a name of Windows", "m\\data\\0", "leads out of the archive"),
        ("no name", "", "has no name"),
        ("NUL in a name", "m/data/0\0", "control characters"),
        ("colours in a name", "\u{1b}[31m", "`\\u{1b}[31m` has control characters"),
        ("a name backwards", "\u{202e}lkp", "control characters"),
        ("a long name", &long, "too long a name"),
        ("a member twice", "m/data/0", "`m/data/0` is there twice"),
        ("two pickles", "m/data.pkl", "`m/data.pkl` is there twice"),
        ("two models", "n/data.pkl", "more than one `data.pkl`"),
    ] {
        let members = [("m/data.pkl", code.as_slice()), ("m/data/0", &STORAGE), (name, b"x")];
        add(what, Archive::new(Kind::Torch, &members), says);
    }
    let odd = Archive::raw(Kind::Torch, &[(b"m/data.pkl", &code), (b"\xff\xfe", b"")]);
    add("a name that is no text", odd, "is not UTF-8");
    for (what, members, says) in [
        ("no pickle", &[("m/x", b"x".as_slice())][..], "without `data.pkl`"),
        ("a pickle without a folder", &[("data.pkl", &code)], "without `data.pkl`"),
        ("a pickle in a folder in a folder", &[("a/b/data.pkl", &code)], "without `data.pkl`"),
        ("big end first", &[("m/data.pkl", &code), ("m/byteorder", b"big")], "big end first"),
        ("no order", &[("m/data.pkl", &code), ("m/byteorder", b"")], "big end first"),
        ("a long order", &[("m/data.pkl", &code), ("m/byteorder", &[b' '; 99])], "99 bytes"),
        ("no storage", &[("m/data.pkl", &code)], "tensor `a` has the storage `m/data/0` that is not there"),
        ("a short storage", &[("m/data.pkl", &code), ("m/data/0", &[0; 23])], "of 23 bytes, where 24 should be"),
        ("a long storage", &[("m/data.pkl", &code), ("m/data/0", &[0; 25])], "of 25 bytes, where 24 should be"),
        ("an empty storage", &[("m/data.pkl", &code), ("m/data/0", b"")], "of 0 bytes, where 24 should be"),
        ("an empty pickle", &[("m/data.pkl", b"")], "bad pickle"),
    ] {
        add(what, Archive::new(Kind::Torch, members), says);
    }
    add("nothing", Archive::new(Kind::Torch, &[]), "no safetensors header");
    let huge = vec![b'N'; (64 << 20) + 1];
    add("a huge pickle", Archive::new(Kind::Torch, &[("m/data.pkl", &huge)]), "a member of 67.1 MB");
    cases.into_iter().map(|(what, bytes, says)| Case { what: what.into(), bytes, says: says.into() }).collect()
}

/// Instructions that are wrong.
fn pickles(add: &mut dyn FnMut(&str, Code, &str)) {
    let raw = |code: &[u8]| [b"\x80\x02", code].concat();
    add("one byte", b"\x80".to_vec(), "2 bytes should follow");
    add("no protocol", b"}.".to_vec(), "does not begin with its protocol");
    for protocol in [0, 1, 6, 255] {
        add("another protocol", vec![0x80, protocol, b'N', b'.'], &format!("its protocol is {protocol}"));
    }
    add("nothing but a protocol", raw(b""), "1 bytes should follow, and 0 do");
    add("no end", raw(b"}"), "1 bytes should follow, and 0 do");
    add("bytes after the end", raw(b"}.N"), "1 bytes follow its end");
    add("a pickle after a pickle", [pickle(&state()), pickle(&state())].concat(), "bytes follow its end");
    add("two values", raw(b"}}."), "ends before its value is whole");
    add("an open group", raw(b"(}."), "ends before its value is whole");
    let lacking: &[&[u8]] = &[
        b".",
        b"0",
        b"2",
        b"a",
        b"s",
        b"R",
        b"\x81",
        b"\x92",
        b"\x93",
        b"b",
        b"Q",
        b"q\0",
        b"r\0\0\0\0",
        b"\x94",
        b"\x85",
        b"\x86",
        b"\x87",
        b"]a",
        b"}Ns",
        b"NR",
        b"N\x93",
        b"NN\x92",
        b"N\x86",
        b"NN\x87",
        b"(o",
        b"N(0",
        b"NN(\x86",
        b"]N(a",
        b"}NN(s",
        b"}(2",
        b"N(q\0",
    ];
    for code in lacking {
        add(&format!("{code:x?} alone"), raw(code), "without the values that it works on");
    }
    for code in [b"1", b"t", b"l", b"d", b"e", b"u", b"o", b"\x90", b"\x91"] {
        add(&format!("{code:x?} alone"), raw(code), "the end of a group that did not begin");
    }
    add("items for nothing", raw(b"(Ne"), "without the values that it works on");
    add("items for a number", raw(b"K\x01K\x02a."), "items for what is no list");
    add("keys for a list", raw(b"]NNs."), "keys for what is no dict");
    add("keys for a name", raw(b"cos\nsystem\n(NNu."), "keys for what is no dict");
    add("a key without a value", raw(b"}(Nu."), "a key without a value");
    add("a dict of a key", raw(b"(Nd."), "a key without a value");
    for code in b"ILFSVgpP\0\x7f\xff\x97\x98" {
        add(
            "an instruction of another protocol",
            raw(&[*code, b'1', b'\n', b'.']),
            &format!("instruction {code:#04x}"),
        );
    }
    add("a text of 4 GiB", raw(b"X\xff\xff\xff\xff"), "4294967295 bytes should follow");
    add("a text of 8 EiB", raw(b"\x8d\0\0\0\0\0\0\0\x80"), "9223372036854775808 bytes should follow");
    add("bytes of 16 EiB", raw(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615 bytes should follow");
    add("an array of 16 EiB", raw(b"\x96\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615 bytes should follow");
    add("a number of 2 GiB", raw(b"\x8b\xff\xff\xff\x7f"), "2147483647 bytes should follow");
    add("half a number", raw(b"J\0\0"), "4 bytes should follow, and 2 do");
    add("a frame of 16 EiB", raw(b"\x95\xff\xff\xff\xff\xff\xff\xff\xff."), "is cut off");
    add("nothing is kept", raw(b"h\0."), "nothing is kept under number 0");
    add("a number far away", raw(b"j\xff\xff\xff\xff."), "nothing is kept under number 4294967295");
    add("kept far away", raw(b"Nr\xff\xff\xff\xff."), "kept under number 4294967295, the first after 0");
    add("a name without end", raw(b"cos\nsystem"), "a line without end");
    add("a long name", raw(&[b"c", "x".repeat(5000).as_bytes(), b"\nx\n."].concat()), "a line without end");
    add("a name that is no text", raw(b"c\xff\n\xfe\n."), "a line that is not UTF-8");
    add("control characters", raw(b"cos\x1b[2J\nsystem\x07\n)R."), "`os\\u{1b}[2J.system\\u{7}`");
}

/// Little that becomes much.
fn bombs(add: &mut dyn FnMut(&str, Code, &str)) {
    let many = |code: &[u8], count: usize| pickle(&code.repeat(count));
    add("three million dicts", many(b"}", 3 << 20), "more than 2097152 values");
    add(
        "a million lists in lists",
        pickle(&[b"]".repeat(1 << 20), b"a".repeat((1 << 20) - 1)].concat()),
        "it is of a list",
    );
    let tuples = pickle(&[b"N".to_vec(), b"\x85".repeat(1 << 20)].concat());
    add("a million tuples in tuples", tuples, "it is of a list");
    let deep =
        [b"}".to_vec(), [b"X\x01\0\0\0a".as_slice(), b"}"].concat().repeat(100_000), b"s".repeat(100_000)].concat();
    add("dicts in dicts", pickle(&deep), "it holds no tensor");
    add(
        "very many instructions",
        pickle(&[b"N".to_vec(), b"20".repeat(5 << 20)].concat()),
        "more than 8388608 instructions",
    );
    add("groups in groups", many(b"(", 9 << 20), "more than 8388608 instructions");
    // Each list holds the one within ten times.
    let lists = (0..200u8).fold(b"]q\0".to_vec(), |inner, level| {
        [&b"]("[..], &inner, &[b'h', level].repeat(9), &[b'e', b'q', level + 1]].concat()
    });
    add("10^200 lists", pickle(&lists), "it is of a list");
    let million = [b"]q\0(".to_vec(), b"h\0".repeat(1_000_000), b"e".to_vec()].concat();
    add("a list of itself", pickle(&million), "it is of a list");
    let cycle =
        [b"}q\0".to_vec(), text("model"), b"h\0s".to_vec(), text("x"), storage("FloatStorage", "0", 6), b"s".to_vec()];
    add("a model in itself", pickle(&cycle.concat()), "dicts in dicts in dicts");
    let cycle =
        [global("x", "Y"), b")\x81q\0}".to_vec(), text("model"), b"h\0s".to_vec(), text("x"), floats(), b"sb".to_vec()];
    add("an object in itself", pickle(&cycle.concat()), "more than one model");
    // A module that holds itself twice has 2^n modules at depth n; so has a chain of modules.
    let begin = |code: &[u8]| [&global("torch.nn", "Module"), code].concat();
    let some = [text("_parameters"), named(&[("w", floats())]), b"s".to_vec(), text("_modules")].concat();
    let own = named(&[("a", b"h\0".to_vec()), ("b", b"h\0".to_vec())]);
    let cycle = [begin(b")\x81q\0}"), some, own.clone(), b"sb".to_vec()].concat();
    add("a module in itself", pickle(&cycle), "longer than 4 KiB");
    let none = [text("_parameters"), named(&[]), b"s".to_vec(), text("_modules")].concat();
    let cycle = [begin(b")\x81q\0}"), none, own, b"sb".to_vec()];
    add("a module in itself, without tensors", pickle(&cycle.concat()), "too many or too long names");
    let chain = (0..40u8).fold(module(&[("w", floats())], &[], &[]), |inner, level| {
        let first = [inner, vec![b'q', level]].concat();
        module(&[], &[("a", first), ("b", vec![b'h', level])], &[])
    });
    add("2^40 modules", pickle(&chain), "too many or too long names");
    // Many names of one tensor, and long ones.
    let shared: Code = (0..400_000u32)
        .flat_map(|i| [b"X\x06\0\0\0".as_slice(), format!("{i:06x}").as_bytes(), b"h\0"].concat())
        .collect();
    let names = [floats(), b"q\x000}(".to_vec(), shared, b"u".to_vec()].concat();
    add("very many names", pickle(&names), "too many or too long names");
    let buffers = dict(&(0..50_000).map(|i| (text(&i.to_string()), b"h\0".to_vec())).collect::<Vec<_>>());
    let mut code =
        [floats(), b"q\x000".to_vec(), module(&[], &[], &[("_buffers", buffers)]), b"q\x010".to_vec()].concat();
    // Names may be the same: each is a module of its own.
    code.extend(module(&[], &vec![("a", b"h\x01".to_vec()); 200], &[]));
    add("200 times 50000 names", pickle(&code), "too many or too long names");
}

/// What a pickle says of tensor `w`, beside one that is right.
fn tensors(add: &mut dyn FnMut(&str, Code, &str)) {
    let float = || storage("FloatStorage", "0", 6);
    let rebuild = |name: &str, args: &[Code]| call(global("torch._utils", name), args);
    // Calls of what is no tensor: none is made.
    for (what, code, class) in [
        ("os.system", call(global("os", "system"), &[text("id")]), "os.system"),
        ("eval", call(global("builtins", "eval"), &[text("1")]), "builtins.eval"),
        ("eval of Python 2", call(global("__builtin__", "eval"), &[text("1")]), "__builtin__.eval"),
        ("exec by name", [text("builtins"), text("exec"), b"\x93)R".to_vec()].concat(), "builtins.exec"),
        ("an instance", [b"(".to_vec(), text("id"), b"iposix\nsystem\n".to_vec()].concat(), "posix.system"),
        ("an object", [b"(".to_vec(), global("os", "popen"), text("id"), b"o".to_vec()].concat(), "os.popen"),
        (
            "a new object",
            [global("subprocess", "Popen"), tuple(&[text("id")]), b"\x81".to_vec()].concat(),
            "subprocess.Popen",
        ),
        ("a new object with keys", [global("a", "B"), b")}\x92".to_vec()].concat(), "a.B"),
        (
            "a tensor of numpy",
            call(global("numpy.core.multiarray", "_reconstruct"), &[]),
            "numpy.core.multiarray._reconstruct",
        ),
        ("a sparse tensor", rebuild("_rebuild_sparse_tensor", &[float()]), "torch._utils._rebuild_sparse_tensor"),
        ("a quantised tensor", rebuild("_rebuild_qtensor", &[float()]), "torch._utils._rebuild_qtensor"),
        (
            "a subclass",
            call(global("torch._tensor", "_rebuild_from_type_v2"), &[floats()]),
            "torch._tensor._rebuild_from_type_v2",
        ),
        ("a likeness", call(global("torch.utils", "_rebuild_tensor_v2"), &[float()]), "torch.utils._rebuild_tensor_v2"),
        ("a call with a list", [global("os", "system"), b"]R".to_vec()].concat(), "os.system"),
    ] {
        add(what, code, &format!("is an object of `{class}`, not a tensor"));
    }
    add("a call of a number", b"K\x01)R".to_vec(), "is an object of no class, not a tensor");
    add("a call of an extension", b"\x82\x07)R".to_vec(), "is an object of no class, not a tensor");
    add(
        "a call without arguments",
        [global("torch._utils", "_rebuild_tensor_v2"), b"NR".to_vec()].concat(),
        "is an object of `torch._utils._rebuild_tensor_v2`",
    );
    add("a storage", float(), "is a storage, not a tensor");
    add("a list of tensors", list(&[floats()]), "is a list, not a tensor");
    add("a dict of tensors", state(), "is a dict, not a tensor");
    add("an object with a tensor", object(global("x", "Y"), state()), "is an object of `x.Y`, not a tensor");
    add("no arguments", rebuild("_rebuild_tensor_v2", &[]), "calls `_rebuild_tensor_v2` with 0 values");
    add("few arguments", rebuild("_rebuild_tensor_v2", &[float(), int(0)]), "calls `_rebuild_tensor_v2` with 2 values");
    add(
        "an old call of many",
        rebuild("_rebuild_tensor", &[float(), int(0), int(0), int(0), int(0)]),
        "calls `_rebuild_tensor` with 5 values",
    );
    add("an empty parameter", rebuild("_rebuild_parameter", &[]), "calls `_rebuild_parameter` with 0 values");
    add(
        "a parameter of a number",
        rebuild("_rebuild_parameter", &[int(1)]),
        "is an object of `torch._utils._rebuild_parameter`, not a tensor",
    );
    let twice = rebuild("_rebuild_parameter", &[rebuild("_rebuild_parameter", &[floats()])]);
    add("a parameter of a parameter", twice, "calls `_rebuild_parameter` with 1 values");

    // Storages.
    let of = |storage: Code| over(storage, 0, &[2, 3], &[3, 1]);
    let id = |items: &[Code]| of([tuple(items), b"Q".to_vec()].concat());
    let (kind, class, key, cpu) = (text("storage"), global("torch", "FloatStorage"), text("0"), text("cpu"));
    add("no storage", of(none()), "has no storage");
    add("a storage that is not named", of([none(), b"Q".to_vec()].concat()), "has no storage");
    add("a short name", id(&[kind.clone(), class.clone(), key.clone(), cpu.clone()]), "has no storage");
    let odd = "has a storage that is none of PyTorch";
    add("a module", id(&[text("module"), class.clone(), key.clone(), cpu.clone(), int(6)]), odd);
    add("a class of another", id(&[kind.clone(), global("os", "FloatStorage"), key.clone(), cpu.clone(), int(6)]), odd);
    add("a class that is a text", id(&[kind.clone(), text("FloatStorage"), key.clone(), cpu.clone(), int(6)]), odd);
    add("a number for a key", id(&[kind.clone(), class.clone(), int(0), cpu.clone(), int(6)]), odd);
    add("fewer than no elements", id(&[kind.clone(), class.clone(), key.clone(), cpu.clone(), int(-6)]), odd);
    add("elements of 80 bits", id(&[kind, class, key, cpu, b"\x8a\x0a\0\0\0\0\0\0\0\0\0\x01".to_vec()]), odd);
    for class in ["QInt8Storage", "ComplexDoubleStorage", "UntypedStorage", "", "floatStorage"] {
        add("a type of no safetensors file", of(storage(class, "0", 6)), &format!("is of type `torch.{class}`"));
    }
    for key in ["1", "", "../0", "0/../0", "./0", "0\0", "00", "/0"] {
        let key = tensor("FloatStorage", key, &[2, 3]);
        add("a key that is not there", key, "has the storage");
    }
    add(
        "too few elements in the file",
        of(storage("FloatStorage", "0", 7)),
        "has the storage `m/data/0` of 24 bytes, where 28 should be",
    );
    add(
        "too many elements in the file",
        over(storage("FloatStorage", "0", 5), 0, &[5], &[1]),
        "has the storage `m/data/0` of 24 bytes, where 20 should be",
    );
    add(
        "another type",
        of(storage("DoubleStorage", "0", 6)),
        "has the storage `m/data/0` of 24 bytes, where 48 should be",
    );
    add("very many elements", of(storage("DoubleStorage", "0", i64::MAX)), "has more bytes than 64 bits can count");

    // Offsets, shapes, strides.
    let view = |offset, size: &[i64], stride: &[i64]| over(float(), offset, size, stride);
    add("before the storage", view(-1, &[2], &[1]), "has an offset that is none");
    add("beyond the storage", view(7, &[0], &[1]), "takes 0 bytes from byte 28 on of a storage of 24");
    add("across the end", view(1, &[2, 3], &[3, 1]), "takes 24 bytes from byte 4 on of a storage of 24");
    add("far beyond", view(1 << 61, &[2], &[1]), "takes 8 bytes from byte 9223372036854775808 on");
    add("beyond all numbers", view(i64::MAX, &[2], &[1]), "has more bytes than 64 bits can count");
    add("larger than the storage", view(0, &[7], &[1]), "takes 28 bytes from byte 0 on of a storage of 24");
    add("much larger", view(0, &[1 << 40, 1 << 20], &[1 << 20, 1]), "takes 4611686018427387904 bytes");
    add(
        "larger than all numbers",
        view(0, &[1 << 40, 1 << 40], &[1 << 40, 1]),
        "[1099511627776, 1099511627776] has more elements than 64 bits",
    );
    add(
        "nothing of too much",
        view(0, &[1 << 40, 0, 1 << 40], &[1, 1, 1]),
        "[1099511627776, 0, 1099511627776] has more elements than 64 bits",
    );
    add("a negative dimension", view(0, &[-2, -3], &[3, 1]), "has dimensions that are none or are negative");
    add("a dimension too many", view(0, &[1; 17], &[1; 17]), "has more than 16 dimensions");
    add("fewer strides", view(0, &[2, 3], &[1]), "has 2 dimensions and 1 strides");
    add("more strides", view(0, &[6], &[1, 1]), "has 1 dimensions and 2 strides");
    add("a negative stride", view(5, &[6], &[-1]), "has strides that are none or are negative");
    add(
        "columns first",
        view(0, &[2, 3], &[1, 2]),
        "is not contiguous: its shape is [2, 3], and its strides are [1, 2]",
    );
    add("one row for all", view(0, &[2, 3], &[0, 1]), "is not contiguous");
    add("rows over each other", view(0, &[2, 3], &[2, 1]), "is not contiguous");
    add("every second", view(0, &[3], &[2]), "is not contiguous");
    add("a huge stride", view(0, &[2], &[i64::MAX]), "is not contiguous");
    let hooks = || none();
    let v2 = |size: Code, more: &[Code]| {
        rebuild("_rebuild_tensor_v2", &[&[float(), int(0), size, numbers(&[1]), none(), hooks()], more].concat())
    };
    add("a shape that is a number", v2(int(6), &[]), "has dimensions that are none");
    add("a shape of texts", v2(tuple(&[text("6")]), &[]), "has dimensions that are none");
    add(
        "a shape of a huge number",
        v2(tuple(&[b"\x8a\x09\0\0\0\0\0\0\0\0\x01".to_vec()]), &[]),
        "has dimensions that are none",
    );
    add(
        "a conjugate",
        v2(numbers(&[6]), &[named(&[("conj", b"\x88".to_vec())])]),
        "is a view that negates or conjugates",
    );
    add(
        "a conjugate by a call",
        v2(numbers(&[6]), &[call(global("x", "y"), &[])]),
        "is a view that negates or conjugates",
    );

    // The newer types.
    let v3 = |dtype: Code| {
        rebuild(
            "_rebuild_tensor_v3",
            &[storage("UntypedStorage", "0", 24), int(0), numbers(&[24]), numbers(&[1]), none(), hooks(), dtype],
        )
    };
    add("a type of another", v3(global("os", "float8_e4m3fn")), "has no type of PyTorch");
    add("a type that is a text", v3(text("float8_e4m3fn")), "has no type of PyTorch");
    add("a type of 128 bits", v3(global("torch", "complex128")), "is of type `torch.complex128`");
    add("half a byte", v3(global("torch", "float4_e2m1fn_x2")), "is of type `torch.float4_e2m1fn_x2`");
    add("too wide a type", v3(global("torch", "uint16")), "takes 48 bytes from byte 0 on of a storage of 24");
}

/// Models that are none, or several.
fn models(add: &mut dyn FnMut(&str, Code, &str)) {
    for (what, root, says) in [
        ("nothing", none(), "it is of `None`"),
        ("a number", int(1), "it is of a whole number"),
        ("a text", text("x"), "it is of a string"),
        ("a name", global("os", "system"), "it is of the name of something in Python"),
        ("a list of tensors", list(&[floats()]), "it is of a list"),
        ("a tensor", floats(), "it is of a tensor without a name"),
        ("a storage", storage("FloatStorage", "0", 6), "it is of a storage"),
        ("a call", call(global("os", "system"), &[text("id")]), "it is of an object of `os.system`"),
        ("a call beside a tensor", call(global("os", "system"), &[floats()]), "it is of an object of `os.system`"),
        ("an object without a state", [global("x", "Y"), b")\x81".to_vec()].concat(), "it is of an object of `x.Y`"),
        ("an empty dict", named(&[]), "it holds no tensor"),
        ("a dict of numbers", named(&[("a", int(1))]), "it holds no tensor"),
        ("a model of numbers", named(&[("model", named(&[("a", int(1))]))]), "it holds no tensor"),
        ("a call in a dict", named(&[("w", call(global("os", "system"), &[]))]), "it holds no tensor"),
        (
            "another kind of dict",
            named(&[("state_dict", call(global("collections", "defaultdict"), &[state()]))]),
            "tensor `state_dict` is an object of `collections.defaultdict`",
        ),
        ("an unusual name", named(&[("student", state()), ("teacher", state())]), "below `student`, `teacher`"),
    ] {
        add(what, root, says);
    }
    add(
        "two models",
        named(&[("model", state()), ("state_dict", state())]),
        "more than one model: `state_dict`, `model`",
    );
    add("tensors beside a model", named(&[("model", state()), ("w", floats())]), "`model` and tensors beside it");
    let deep = (0..6).fold(state(), |inner, _| named(&[("model", inner)]));
    add("a model in six dicts", deep, "dicts in dicts in dicts");
    let name = |name: &str| named(&[(name, floats())]);
    add("an empty name", name(""), "empty name");
    add("the name of a header", name("__metadata__"), "no tensor can be named `__metadata__`");
    add("colours in a name", name("\u{1b}[31m"), "control characters in the name of tensor `\\u{1b}[31m`");
    add("a name of a megabyte", name(&"x".repeat(1 << 20)), "longer than 4 KiB");
    add("a number for a name", dict(&[(int(1), floats())]), "the name of a tensor is a whole number, not a string");
    add(
        "a name that is no text",
        [b"}X\x01\0\0\0\xff".to_vec(), floats(), b"s".to_vec()].concat(),
        "the name of a tensor is",
    );
    add("a tensor twice", named(&[("a", floats()), ("b", floats()), ("a", floats())]), "tensor `a` appears twice");
    // Modules.
    let odd = |state: &[(&str, Code)]| object(global("torch.nn", "Module"), named(state));
    let empty = || named(&[]);
    add(
        "parameters in a list",
        odd(&[("_parameters", list(&[])), ("_modules", empty())]),
        "`_parameters` of a module is no dict",
    );
    add(
        "modules in a list",
        odd(&[("_parameters", empty()), ("_modules", list(&[]))]),
        "`_modules` of a module is no dict",
    );
    add(
        "no buffers",
        odd(&[("_parameters", empty()), ("_modules", empty()), ("_buffers", int(1))]),
        "`_buffers` of a module is no dict",
    );
    add("no set", module(&[], &[], &[("_non_persistent_buffers_set", text("x"))]), "is no set");
    add(
        "a call for a parameter",
        module(&[("w", call(global("os", "system"), &[]))], &[], &[]),
        "tensor `w` is an object of `os.system`",
    );
    add(
        "a number for a buffer",
        module(&[], &[], &[("_buffers", named(&[("b", int(1))]))]),
        "tensor `b` is a whole number",
    );
    add("a dict for a module", module(&[], &[("a", state())], &[]), "module `a` is a dict, and no `nn.Module`");
    add(
        "a call for a module",
        module(&[], &[("a", call(global("os", "system"), &[]))], &[]),
        "module `a` is an object of `os.system`",
    );
    let number = object(
        global("x", "Y"),
        dict(&[(text("_parameters"), dict(&[(int(1), floats())])), (text("_modules"), empty())]),
    );
    add("a number for a parameter's name", number, "has a key that is no string");
    let leaf = || module(&[("w", floats())], &[], &[]);
    add("two parameters of one name", module(&[], &[("a", leaf()), ("a", leaf())], &[]), "tensor `a.w` appears twice");
    add(
        "two ways to one name",
        module(&[], &[("a.b", leaf()), ("a", module(&[], &[("b", leaf())], &[]))], &[]),
        "tensor `a.b.w` appears twice",
    );
}
