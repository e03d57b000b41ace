//! Numbers and names as people read them.

/// Longest message; of a longer one, both ends.
const LONGEST: usize = 4000;

/// `text` without what could move a cursor, ring a bell or turn the reading direction. Line breaks stay. Of what would
/// fill a screen the middle is left out.
pub fn harmless(text: &str) -> String {
    let count = text.chars().count();
    let (front, back) = if count > LONGEST { (LONGEST / 2, count - LONGEST / 2) } else { (count, count) };
    let middle = (front < back).then_some('…');
    let mut out = String::with_capacity(text.len().min(2 * LONGEST));
    for c in text.chars().take(front).chain(middle).chain(text.chars().skip(back)) {
        let hostile = c.is_control() && c != '\n'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match hostile {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

/// `141.1 GB`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, "B", &["kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `70.6 B`: a number of parameters.
pub fn count(n: u64) -> String {
    scaled(n as f64, "", &["K", "M", "B", "T", "P", "E"]).trim_end().to_owned()
}

fn scaled(n: f64, unit: &str, units: &[&str]) -> String {
    let (mut value, mut name, mut larger) = (n, unit, units.iter());
    while value >= 999.95 {
        let Some(next) = larger.next() else { break };
        (value, name) = (value / 1e3, next);
    }
    if name == unit { format!("{n} {unit}") } else { format!("{value:.1} {name}") }
}

/// `1 tensor`, `723 tensors`.
pub fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A norm or a ratio: four digits that count, without exponents as long as it can be read.
pub fn number(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 || !x.is_finite() {
        format!("{x}")
    } else if !(1e-3..1e5).contains(&size) {
        format!("{x:.3e}")
    } else {
        let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
        format!("{x:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            ["0 B", "999 B", "1.0 kB", "1.0 MB", "141.1 GB"],
            [0, 999, 1000, 999_960, 141_107_412_992].map(bytes).each_ref().map(String::as_str)
        );
        assert_eq!(["12", "70.6 B"], [12, 70_553_706_496].map(count).each_ref().map(String::as_str));
        assert_eq!(
            ["0", "1.000", "0.5432", "12.35", "1235", "0.001235", "1.235e-4", "1.235e5", "NaN"],
            [0.0, 1.0, 0.54321, 12.3456, 1234.56, 0.001_234_56, 1.234_56e-4, 123_456.0, f64::NAN]
                .map(number)
                .each_ref()
                .map(String::as_str)
        );
        assert_eq!([plural(1, "tensor"), plural(0, "tensor")], ["1 tensor", "0 tensors"]);
    }

    #[test]
    fn nothing_hostile_reaches_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\nb\\u{202e}");
    }
}
