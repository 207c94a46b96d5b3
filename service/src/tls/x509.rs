//! What operators want to know of a certificate and rustls does not tell: until when it is good, and what it is called.
//!
//! It reads as much of DER (X.690) as that takes of a certificate (RFC 5280, 4.1), and trusts none of it: whether a
//! certificate is good at all is for rustls to say.

use jiff::civil;
use jiff::tz::Offset;

/// Tags of DER.
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]` and `[3]` of a certificate: its version and its extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `[2]` and `[6]` of a GeneralName.
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;

/// The object identifiers of a common name, and of the extension with alternative names.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// The longest name that is told of a certificate; it goes into a line of the log.
const NAME_CHARS_MAX: usize = 150;

/// Returns until when a certificate is good, in unix seconds; nothing where it cannot be read.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let mut validity = Reader(parts(certificate)?.validity);
    let _begin = validity.next()?;
    time(validity.next()?)
}

/// Returns what a certificate is called: its common name, or else the first URI or DNS name that it is for.
pub(super) fn name(certificate: &[u8]) -> Option<String> {
    let parts = parts(certificate)?;
    let found = common_name(parts.subject).or_else(|| alternative_name(parts.extensions))?;
    // It goes into logs, where a line break would make two lines of one.
    let name: String =
        String::from_utf8_lossy(found).chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    (!name.is_empty()).then_some(name)
}

/// The parts of a certificate that are read here.
struct Parts<'a> {
    validity: &'a [u8],
    subject: Reader<'a>,
    extensions: Option<&'a [u8]>,
}

fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let mut signed = Reader(Reader(Reader(certificate).expect(SEQUENCE)?).expect(SEQUENCE)?);
    signed.optional(VERSION);
    // The serial number, the signature's algorithm, the issuer.
    for _ in 0..3 {
        signed.next()?;
    }
    let validity = signed.expect(SEQUENCE)?;
    let subject = Reader(signed.expect(SEQUENCE)?);
    let extensions = std::iter::from_fn(|| signed.next()).find(|(tag, _)| *tag == EXTENSIONS).map(|(_, list)| list);
    Some(Parts { validity, subject, extensions })
}

fn common_name(mut subject: Reader<'_>) -> Option<&[u8]> {
    while let Some((SET, set)) = subject.next() {
        let mut attribute = Reader(Reader(set).expect(SEQUENCE)?);
        if attribute.expect(OBJECT_IDENTIFIER)? == COMMON_NAME {
            return attribute.next().map(|(_, text)| text).filter(|text| !text.is_empty());
        }
    }
    None
}

fn alternative_name(extensions: Option<&[u8]>) -> Option<&[u8]> {
    let mut extensions = Reader(Reader(extensions?).expect(SEQUENCE)?);
    while let Some((SEQUENCE, extension)) = extensions.next() {
        let mut extension = Reader(extension);
        if extension.expect(OBJECT_IDENTIFIER)? != SUBJECT_ALT_NAME {
            continue;
        }
        // Whether it is critical may stand between.
        let (_, value) = std::iter::from_fn(|| extension.next()).find(|(tag, _)| *tag == OCTET_STRING)?;
        let mut names = Reader(Reader(value).expect(SEQUENCE)?);
        let names: Vec<_> = std::iter::from_fn(|| names.next()).collect();
        let first = |wanted| names.iter().find(|(tag, _)| *tag == wanted).map(|(_, name)| *name);
        return first(URI).or_else(|| first(DNS_NAME));
    }
    None
}

/// Reads `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5).
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number: i16, digit| number * 10 + i16::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let mut two = rest.chunks(2).map(|digits| number(digits) as i8);
    let mut next = || two.next();
    let date = civil::DateTime::new(year, next()?, next()?, next()?, next()?, next()?, 0).ok()?;
    Some(Offset::UTC.to_timestamp(date).ok()?.as_second())
}

/// Reads one value of DER after the other.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Returns the next value and its tag; nothing at the end, or where it is damaged.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // So many bytes of length follow; four say more than any certificate has. None would be a length that is not
            // told, which DER does not have.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// Returns the next value where it has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    /// Passes over the next value where it has this tag.
    fn optional(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["profiles.example.com".to_owned()]).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn until_when_it_is_good_in_either_form_of_time() {
        // From 2050 on the year has four digits.
        for year in [1999, 2031, 2049, 2050] {
            let end = date_time_ymd(year, 1, 2);
            let certificate = made(|params| params.not_after = end);
            assert_eq!(not_after(&certificate), Some(end.unix_timestamp()), "{year}");
        }
    }

    #[test]
    fn the_name_is_the_common_one_or_that_of_an_identity() {
        let common = made(|params| params.distinguished_name.push(DnType::CommonName, "agents\nof team a"));
        assert_eq!(name(&common).as_deref(), Some("agentsof team a"));
        let alternative = |names: Vec<SanType>| {
            made(|params| {
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.subject_alt_names = names;
            })
        };
        let dns = SanType::DnsName("agents".try_into().expect("ASCII"));
        let uri = SanType::URI("spiffe://example.com/agents".try_into().expect("ASCII"));
        assert_eq!(name(&alternative(vec![dns.clone()])).as_deref(), Some("agents"));
        assert_eq!(name(&alternative(vec![dns, uri])).as_deref(), Some("spiffe://example.com/agents"));
        assert_eq!(name(&alternative(Vec::new())), None);
    }

    /// Goal: whatever a certificate's bytes are, they are looked at without a panic.
    #[test]
    fn damaged_bytes_tell_nothing() {
        let certificate = made(|_| {});
        for end in 0..certificate.len() {
            assert_eq!(not_after(&certificate[..end]), None);
            assert_eq!(name(&certificate[..end]), None);
        }
        for at in 0..certificate.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = certificate.clone();
                damaged[at] ^= flip;
                let _ = (not_after(&damaged), name(&damaged));
            }
        }
    }
}
