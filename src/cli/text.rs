//! Numbers and names as people read them.

pub use magic_merge::figures::{bytes, count, number, plural};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hostile_reaches_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\nb\\u{202e}");
    }
}
