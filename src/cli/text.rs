//! Numbers and names as people read them.

pub use magic_merge::figures::{bytes, count, number, plural};
use magic_merge::part::Depth;
use unicode_width::UnicodeWidthStr;

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

/// `4096×11008`.
pub fn shape(dims: &[u64]) -> String {
    let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
    if dims.is_empty() { "scalar".to_owned() } else { dims.join("×") }
}

/// `12.3 %` of `whole`; 0 and 100 stand for none and for all of it alone.
pub fn percent(part: u64, whole: u64) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    match share {
        _ if part == 0 => "0 %".into(),
        _ if part == whole => "100 %".into(),
        _ if share < 0.05 => "<0.1 %".into(),
        _ if share > 99.95 => ">99.9 %".into(),
        _ => format!("{share:.1} %"),
    }
}

/// `text` in at most `width` columns. Of what is too long the beginning is left out, but for the first number in the name
/// of a tensor: it says which layer it is.
pub fn shorten(text: &str, width: usize) -> String {
    let excess = (text.width() + 1).saturating_sub(width);
    if text.width() <= width {
        return text.to_owned();
    }
    if text.contains([' ', '/']) {
        return format!("…{}", last(text, width.saturating_sub(1)));
    }
    let parts = Depth::of(text).filter(|depth| !depth.stack.is_empty()).and_then(|depth| {
        let (head, rest) = text.split_at(depth.stack.len() + 1);
        let (number, tail) = rest.split_at(rest.find('.')? + 1);
        Some((head, number, tail))
    });
    let (head, number, tail) = parts.unwrap_or(("", "", text));
    if excess <= head.width() && !head.is_empty() {
        return format!("…{}{number}{tail}", last(head, head.width() - excess));
    }
    let front = if number.is_empty() { String::new() } else { format!("…{number}") };
    format!("{front}…{}", last(tail, width.saturating_sub(front.width() + 1)))
}

/// The last characters of `text`, of `width` columns at most.
fn last(text: &str, width: usize) -> &str {
    let fits = |at: &usize| text[*at..].width() <= width;
    let start = text.char_indices().map(|(at, _)| at).find(fits).unwrap_or(text.len());
    &text[start..]
}

/// `text` in lines of at most `width` columns, as far as there are spaces to break it at.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.width() + 1 + word.width() <= width {
            *line += &format!(" {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_layer() {
        let name = "model.layers.23.post_attention_layernorm.weight";
        assert_eq!(shorten(name, 47), name);
        assert_eq!(shorten(name, 40), "…yers.23.post_attention_layernorm.weight");
        assert_eq!(shorten(name, 24), "…23.…on_layernorm.weight");
        assert_eq!(shorten("llvmpipe (LLVM, 256 bits)", 12), "…, 256 bits)");
        for width in 6..47 {
            assert_eq!(shorten(name, width).width(), width, "{}", shorten(name, width));
        }
    }

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
        assert_eq!(
            ["0 %", "<0.1 %", ">99.9 %", "100 %"],
            [0, 1, 99_999, 100_000].map(|n| percent(n, 100_000)).each_ref().map(|s| &**s)
        );
    }

    #[test]
    fn nothing_hostile_reaches_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\nb\\u{202e}");
    }
}
