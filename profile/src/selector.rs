//! Selectors: which profiles a question is about, in Prometheus's syntax.
//!
//! `{service="api", dc=~"eu-.*", version!="1.4"}`: all matchers must match. The operators are `=`, `!=`, `=~`, `!~`; strings are quoted
//! by `"` or `'` with Go's escapes, or by backticks without; a trailing comma is fine; `{}` and the empty text match everything.
//! Regular expressions are anchored at both ends, and their dot matches newlines, as in Prometheus 3. A missing label is the empty
//! string. The name `type` means the profile type. Names may hold `.` and `-`, quoted or not; metric names in front do not exist here.
//!
//! Source: <https://prometheus.io/docs/prometheus/latest/querying/basics/>.

use crate::labels::{self, Labels, write_quoted};
use crate::profile_type::ProfileType;
use regex::{Regex, RegexBuilder};
use std::fmt;

/// The most bytes of a selector.
pub const BYTES_MAX: usize = 16 << 10;
/// The most matchers of a selector.
pub const MATCHERS_MAX: usize = 64;
/// The most bytes that one compiled regular expression may take.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// Why a text is no selector, and at which byte of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector is wrong at byte {byte}: {problem}")]
pub struct Error {
    /// Where in the text.
    pub byte: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What may be wrong with a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text is longer than allowed.
    #[error("{bytes} bytes exceed the limit of {BYTES_MAX}")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// There are too many matchers.
    #[error("more than {MATCHERS_MAX} matchers")]
    Matchers,
    /// Something else was expected.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What may stand there.
        expected: &'static str,
        /// What does: a character in quotes, or the end.
        found: String,
    },
    /// A name in front of the braces, as metrics have and profiles do not.
    #[error(
        "a name in front of {{ is not supported: write {{service=\"…\"}} and choose the profile type by {{type=\"…\"}}"
    )]
    MetricName,
    /// A string without its closing quote.
    #[error("string is not closed")]
    Unclosed,
    /// An escape that strings do not know.
    #[error("unknown escape \\{0}")]
    Escape(char),
    /// An escape with too few digits, or beyond what its form can say.
    #[error("escape is incomplete or out of range")]
    EscapeValue,
    /// Byte escapes that make no UTF-8.
    #[error("string is not UTF-8")]
    Utf8,
    /// A quoted name that no label can have.
    #[error("label name {0:?} is not of the form [a-zA-Z_][a-zA-Z0-9_.-]*")]
    Name(String),
    /// A regular expression that is wrong or too large.
    #[error("regular expression: {0}")]
    Regex(String),
}

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    NotMatches,
}

impl Op {
    /// Returns how it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        }
    }
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: Box<str>,
    op: Op,
    value: Box<str>,
    /// The compiled value, of `=~` and `!~`.
    regex: Option<Regex>,
}

impl Matcher {
    /// Returns the name of the label; `type` for the profile type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how it compares.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Returns what it compares with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns whether it matches a value; a missing label has the empty one.
    pub fn matches(&self, value: &str) -> bool {
        match (&self.regex, self.op) {
            (Some(regex), Op::NotMatches) => !regex.is_match(value),
            (Some(regex), _) => regex.is_match(value),
            (None, Op::NotEqual) => *self.value != *value,
            (None, _) => *self.value == *value,
        }
    }
}

/// A set of matchers, all of which must match. The default has none and matches everything.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    matchers: Vec<Matcher>,
}

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// Says what is wrong and at which byte.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > BYTES_MAX {
            return Err(Error { byte: BYTES_MAX, problem: Problem::Length { bytes: text.len() } });
        }
        Parser { text, pos: 0 }.selector()
    }

    /// Returns its matchers, in the order they were written.
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// Puts what is asked of the label `from` to the label `to`.
    pub fn rename(&mut self, from: &str, to: &str) {
        for matcher in self.matchers.iter_mut().filter(|matcher| *matcher.name == *from) {
            matcher.name = to.into();
        }
    }

    /// Takes out what is asked of the label `name`.
    pub fn take(&mut self, name: &str) -> Vec<Matcher> {
        self.matchers.extract_if(.., |matcher| *matcher.name == *name).collect()
    }

    /// Returns whether all matchers match a profile with these labels, of this type.
    pub fn matches(&self, labels: &Labels, profile_type: &ProfileType) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = match &*matcher.name {
                labels::TYPE => profile_type.as_str(),
                name => labels.get(name).unwrap_or_default(),
            };
            matcher.matches(value)
        })
    }
}

/// Gives a text that parses to the same selector.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.matchers.iter().enumerate() {
            write!(f, "{}{}{}", if i == 0 { "" } else { "," }, matcher.name, matcher.op.as_str())?;
            write_quoted(f, &matcher.value)?;
        }
        f.write_str("}")
    }
}

impl std::str::FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

// === Parser ===

/// A position in the text of a selector.
struct Parser<'t> {
    text: &'t str,
    pos: usize,
}

impl Parser<'_> {
    fn selector(mut self) -> Result<Selector, Error> {
        self.skip_space();
        if self.rest().is_empty() {
            return Ok(Selector::default());
        }
        if self.peek().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '_' | ':')) {
            return Err(self.error(Problem::MetricName));
        }
        if !self.take('{') {
            return Err(self.unexpected("`{`"));
        }
        let mut matchers = Vec::new();
        loop {
            self.skip_space();
            if self.take('}') {
                break;
            }
            if matchers.len() == MATCHERS_MAX {
                return Err(self.error(Problem::Matchers));
            }
            matchers.push(self.matcher()?);
            self.skip_space();
            if !self.take(',') && self.peek() != Some('}') {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        self.skip_space();
        if !self.rest().is_empty() {
            return Err(self.unexpected("the end"));
        }
        Ok(Selector { matchers })
    }

    fn matcher(&mut self) -> Result<Matcher, Error> {
        let name = self.name()?;
        self.skip_space();
        // The longer operators come first, as `=` begins `=~`.
        let ops = [Op::Matches, Op::NotMatches, Op::NotEqual, Op::Equal];
        let op = ops.into_iter().find(|op| self.rest().starts_with(op.as_str()));
        let op = op.ok_or_else(|| self.unexpected("one of = != =~ !~"))?;
        self.pos += op.as_str().len();
        self.skip_space();
        let value_at = self.pos;
        let value = self.string()?;
        let regex = match op {
            Op::Equal | Op::NotEqual => None,
            Op::Matches | Op::NotMatches => Some(compile(&value).map_err(|problem| Error { byte: value_at, problem })?),
        };
        Ok(Matcher { name, op, value: value.into(), regex })
    }

    fn name(&mut self) -> Result<Box<str>, Error> {
        let at = self.pos;
        if self.peek().is_some_and(is_quote) {
            let name = self.string()?;
            return if labels::is_name(&name) {
                Ok(name.into())
            } else {
                /// Enough of a long name to find it.
                const SHOWN_CHARS: usize = 64;
                Err(Error { byte: at, problem: Problem::Name(name.chars().take(SHOWN_CHARS).collect()) })
            };
        }
        let len = self.rest().bytes().take_while(|&b| labels::is_name_byte(b)).count();
        let name = &self.rest()[..len];
        if !labels::is_name(name) {
            return Err(self.unexpected("a label name or `}`"));
        }
        let name = name.into();
        self.pos += len;
        Ok(name)
    }

    fn string(&mut self) -> Result<String, Error> {
        let at = self.pos;
        let quote = self.peek().filter(|&c| is_quote(c)).ok_or_else(|| self.unexpected("a quoted string"))?;
        self.pos += quote.len_utf8();
        // Escapes may say single bytes, which make UTF-8 only together.
        let mut bytes = Vec::new();
        loop {
            let Some(c) = self.peek() else { return Err(Error { byte: at, problem: Problem::Unclosed }) };
            if c == quote {
                self.pos += 1;
                return String::from_utf8(bytes).map_err(|_| Error { byte: at, problem: Problem::Utf8 });
            }
            if c == '\\' && quote != '`' {
                self.escape(quote, &mut bytes)?;
            } else {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                self.pos += c.len_utf8();
            }
        }
    }

    /// Reads an escape: those of Go's string literals, of which Prometheus takes them.
    fn escape(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let at = self.pos;
        let mut chars = self.rest().chars().skip(1);
        let c = chars.next().ok_or(Error { byte: at, problem: Problem::Unclosed })?;
        let simple = match c {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' => b'\\',
            c if c == quote => c as u8,
            'x' => return self.numeric_escape(2, 2, 16, bytes),
            'u' => return self.numeric_escape(2, 4, 16, bytes),
            'U' => return self.numeric_escape(2, 8, 16, bytes),
            '0'..='7' => return self.numeric_escape(1, 3, 8, bytes),
            c => return Err(Error { byte: at, problem: Problem::Escape(c) }),
        };
        bytes.push(simple);
        self.pos += 2;
        Ok(())
    }

    /// Reads an escape of `digits` digits after `prefix` bytes: two or three make a byte, more a character.
    fn numeric_escape(&mut self, prefix: usize, digits: usize, radix: u32, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let error = Error { byte: self.pos, problem: Problem::EscapeValue };
        let end = prefix + digits;
        let text = self.rest().get(prefix..end).filter(|text| text.chars().all(|c| c.is_digit(radix)));
        let value = text.and_then(|text| u32::from_str_radix(text, radix).ok()).ok_or_else(|| error.clone())?;
        if digits <= 3 {
            bytes.push(u8::try_from(value).map_err(|_| error)?);
        } else {
            let c = char::from_u32(value).ok_or(error)?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.pos += end;
        Ok(())
    }

    fn rest(&self) -> &str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, c: char) -> bool {
        let taken = self.peek() == Some(c);
        if taken {
            self.pos += c.len_utf8();
        }
        taken
    }

    fn skip_space(&mut self) {
        self.pos += self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn error(&self, problem: Problem) -> Error {
        Error { byte: self.pos, problem }
    }

    fn unexpected(&self, expected: &'static str) -> Error {
        let found = self.peek().map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"));
        self.error(Problem::Unexpected { expected, found })
    }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

/// Compiles a regular expression, anchored.
fn compile(pattern: &str) -> Result<Regex, Problem> {
    let problem = |error| Problem::Regex(regex_problem(&error));
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
    // By itself first: `a)|(b` is wrong, though it would be right between the parentheses of the anchors.
    build(pattern).map_err(problem)?;
    build(&format!("^(?s:{pattern})$")).map_err(problem)
}

/// Returns what is wrong with a regular expression, in one line.
pub fn regex_problem(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("compiled size exceeds {limit} bytes"),
        // The text shows the pattern with a mark below; its last line says what is wrong.
        error => error.to_string().lines().last().unwrap_or_default().trim().replace("error: ", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Selector {
        Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn refusal(text: &str) -> String {
        Selector::parse(text).expect_err("it is refused").to_string()
    }

    fn labels() -> Labels {
        Labels::new([("service", "api"), ("dc", "eu-1"), ("version", "1.4"), ("note", "two\nlines")])
            .expect("they are valid")
    }

    fn cpu() -> ProfileType {
        ProfileType::parse("cpu").expect("it is a word")
    }

    #[test]
    fn selectors_match_as_prometheus_does() {
        for text in [
            "",
            "  ",
            "{}",
            "{ }",
            r#"{service="api"}"#,
            r#"{service="api",}"#,
            r#" { service = "api" , dc =~ "eu-.*" , version != "1.5" } "#,
            r#"{service=~"a.*|b"}"#,
            r#"{service!~"b.*"}"#,
            r#"{missing=""}"#,
            r#"{missing!="x"}"#,
            r#"{missing=~".*"}"#,
            r#"{missing!~".+"}"#,
            r#"{note=~"two.lines"}"#,
            r#"{note="two\nlines"}"#,
            "{note=`two\nlines`}",
            r#"{type="cpu"}"#,
            r#"{type=~"cpu|heap",service='api'}"#,
            r#"{"service"="api"}"#,
            r#"{dc="\x65u\u002d\061"}"#,
        ] {
            assert!(parse(text).matches(&labels(), &cpu()), "{text}");
        }
        for text in [
            r#"{service="ap"}"#,
            r#"{service=~"ap"}"#,
            r#"{service=~"pi"}"#,
            r#"{service="api",dc="us-1"}"#,
            r#"{service!="api"}"#,
            r#"{service!~"a.*"}"#,
            r#"{missing!=""}"#,
            r#"{missing=~".+"}"#,
            r#"{type="heap"}"#,
            r#"{service=~"(?i:b)|x"}"#,
        ] {
            assert!(!parse(text).matches(&labels(), &cpu()), "{text}");
        }
    }

    #[test]
    fn matchers_move_to_another_label_and_out() {
        let mut selector = parse(r#"{name="a",dc=~"e.*",name!="b",kind="c"}"#);
        selector.rename("name", "service");
        assert_eq!(selector.to_string(), r#"{service="a",dc=~"e.*",service!="b",kind="c"}"#);
        let taken: Vec<_> = selector.take("service").iter().map(|m| (m.op(), m.value().to_owned())).collect();
        assert_eq!(taken, [(Op::Equal, "a".to_owned()), (Op::NotEqual, "b".to_owned())]);
        assert_eq!(selector.to_string(), r#"{dc=~"e.*",kind="c"}"#);
        assert!(selector.take("service").is_empty());
    }

    #[test]
    fn strings_know_the_escapes_of_go() {
        let value = |text: &str| parse(&format!("{{a={text}}}")).matchers()[0].value().to_owned();
        assert_eq!(value(r#""\a\b\f\n\r\t\v\\\"'""#), "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\"'");
        assert_eq!(value(r#"'\'"'"#), "'\"");
        assert_eq!(value(r#""\xc3\xa9\u00e9\U0001f525\303\251""#), "éé\u{1f525}é");
        assert_eq!(value(r#"`\n"'`"#), "\\n\"'");
        assert_eq!(value(r#""é🔥""#), "é🔥");
    }

    #[test]
    fn errors_say_what_and_where() {
        for (text, expected) in [
            ("{", "byte 1: expected a label name or `}`, found the end"),
            ("{service", "byte 8: expected one of = != =~ !~, found the end"),
            (r#"{service="api""#, "byte 14: expected `,` or `}`, found the end"),
            (r#"{service="api} "#, "byte 9: string is not closed"),
            (r#"{service="a\"#, "byte 11: string is not closed"),
            (r#"{service="api"} x"#, "byte 16: expected the end, found 'x'"),
            (r#"{service="api" dc="x"}"#, "byte 15: expected `,` or `}`, found 'd'"),
            (r#"{,}"#, "byte 1: expected a label name or `}`, found ','"),
            (r#"{1a="x"}"#, "byte 1: expected a label name or `}`, found '1'"),
            (r#"{service==“api”}"#, "byte 9: expected a quoted string, found '='"),
            (r#"{service=api}"#, "byte 9: expected a quoted string, found 'a'"),
            (r#"{service>"api"}"#, "byte 8: expected one of = != =~ !~, found '>'"),
            (r#""api""#, "byte 0: expected `{`, found '\"'"),
            (r#"{a="\q"}"#, r"byte 4: unknown escape \q"),
            (r#"{a="\'"}"#, r"byte 4: unknown escape \'"),
            (r#"{a="\x4"}"#, "byte 4: escape is incomplete or out of range"),
            (r#"{a="\400"}"#, "byte 4: escape is incomplete or out of range"),
            (r#"{a="\ud800"}"#, "byte 4: escape is incomplete or out of range"),
            (r#"{a="\u00g0"}"#, "byte 4: escape is incomplete or out of range"),
            (r#"{a="\xff"}"#, "byte 3: string is not UTF-8"),
            (r#"{"a b"="x"}"#, r#"byte 1: label name "a b" is not of the form [a-zA-Z_][a-zA-Z0-9_.-]*"#),
            (r#"{a=~"(b"}"#, "byte 4: regular expression: unclosed group"),
            (r#"{a=~"b)|(c"}"#, "byte 4: regular expression: unopened group"),
            (r#"{a=~"(?:a{1000}){1000}"}"#, "byte 4: regular expression: compiled size exceeds 1048576 bytes"),
            (
                r#"process_cpu{service="api"}"#,
                "byte 0: a name in front of { is not supported: write {service=\"…\"} and choose the profile type by {type=\"…\"}",
            ),
            (
                "cpu",
                "byte 0: a name in front of { is not supported: write {service=\"…\"} and choose the profile type by {type=\"…\"}",
            ),
        ] {
            assert_eq!(refusal(text), format!("selector is wrong at {expected}"), "{text}");
        }
        let long = format!("{{a={:?}}}", "x".repeat(BYTES_MAX));
        assert_eq!(refusal(&long), "selector is wrong at byte 16384: 16390 bytes exceed the limit of 16384");
        let many = format!("{{{}}}", "a=\"\",".repeat(MATCHERS_MAX + 1));
        assert_eq!(refusal(&many), "selector is wrong at byte 321: more than 64 matchers");
    }

    #[test]
    fn selectors_are_given_back() {
        let text = r#"{service="api",dc=~"eu-.*",version!="1\"4\\",note!~"a\nb\u001b",type="cpu"}"#;
        assert_eq!(parse(text).to_string(), text);
        assert_eq!(parse("").to_string(), "{}");
        assert_eq!(parse(&labels().to_string()).to_string(), labels().to_string());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_value_survives_quoting(value in "\\PC*|[\\x00-\\x7f]*") {
            let mut labels = Selector::default();
            labels.matchers.push(Matcher { name: "a".into(), op: Op::Equal, value: value.clone().into(), regex: None });
            let again = Selector::parse(&labels.to_string()).expect("what is shown can be parsed");
            prop_assert_eq!(again.matchers()[0].value(), value);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[{}a=!~\"'`\\\\,x0-9u (|)*é]{0,40}") {
            if let Ok(selector) = Selector::parse(&text) {
                let again = Selector::parse(&selector.to_string()).expect("what is shown can be parsed");
                prop_assert_eq!(again.to_string(), selector.to_string());
            }
        }
    }
}
