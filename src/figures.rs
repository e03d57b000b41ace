//! Numbers as people read them.

/// `70.6 B`: a number of parameters.
pub fn count(n: u64) -> String {
    scaled(n as f64, "", &["K", "M", "B", "T", "P", "E"]).trim_end().to_owned()
}

/// `141.1 GB`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, "B", &["kB", "MB", "GB", "TB", "PB", "EB"])
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
}
