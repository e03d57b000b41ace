//! Text of others inside a page: nothing in it is ever markup.

use crate::checkpoint::text::shown;

/// `text` for an element or a quoted attribute: control and direction characters are escaped and the middle of a long text
/// left out, as in messages; then what HTML would take for its own.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in shown(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // No characters at all, which an XML parser would refuse.
            '\u{fffe}' | '\u{ffff}' => out += "\u{fffd}",
            c => out.push(c),
        }
    }
    out
}

/// A name in a fixed-width face. A line may end behind its dots and slashes.
pub fn code(name: &str) -> String {
    let parts: Vec<String> = shown(name).split_inclusive(['.', '/']).map(escape).collect();
    format!("<code>{}</code>", parts.join("<wbr/>"))
}

/// A sentence, with what is between back quotes as names.
pub fn prose(text: &str) -> String {
    let mark = |(i, part): (usize, &str)| if i % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() };
    let text = escape(text);
    // A quote without another is what it is.
    if text.matches('`').count() % 2 == 1 { text } else { text.split('`').enumerate().map(mark).collect() }
}

/// A text of several lines, as it is.
pub fn lines(text: &str) -> String {
    text.lines().map(|line| escape(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_markup() {
        assert_eq!(escape("<script>alert('x')</script>"), "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;");
        assert_eq!(escape(r#"" onload="x"#), "&quot; onload=&quot;x");
        assert_eq!(escape("&lt;"), "&amp;lt;");
        assert_eq!(escape("a\u{0}\u{1b}[2J\u{202e}b\u{2066}\r\n"), r"a\u{0}\u{1b}[2J\u{202e}b\u{2066}\u{d}\u{a}");
        assert_eq!(escape("\u{ffff}‖τ‖ 模型"), "\u{fffd}‖τ‖ 模型");
        assert!(escape(&"<".repeat(1 << 20)).len() < 2000);
        assert_eq!(code("a/b.<c>"), "<code>a/<wbr/>b.<wbr/>&lt;c&gt;</code>");
        assert!(code(&".".repeat(1 << 20)).len() < 5000);
        assert_eq!(prose("in `<a>` and `b`"), "in <code>&lt;a&gt;</code> and <code>b</code>");
        assert_eq!(prose("in `<a> alone"), "in `&lt;a&gt; alone");
        assert_eq!(lines("a: 1\r\nb: <\n"), "a: 1\nb: &lt;\n");
    }
}
