//! gzip: what senders wrap a profile in, and what it is answered in.
//!
//! A profile nearly always comes as one gzip member with its size at the end; then libdeflate inflates it into one buffer of that
//! size. Everything else (several members, a size that cannot be right, damage) takes a streaming decoder that stops at the limit and
//! knows how far it came. Both check the CRC.

use crate::error::Error;
use crate::limits::{INFLATE_RATIO_FREE_BYTES, Limits};
use crate::memory::written;
use flate2::bufread::MultiGzDecoder;
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};
use std::borrow::Cow;
use std::io::Read;

/// What gzip starts with: RFC 1952, section 2.3.1; the third byte is its only compression method.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// The fewest bytes of a gzip member: a header of 10, an empty deflate stream of 2, a trailer of 8.
const MEMBER_BYTES_MIN: usize = 20;

/// What a trailer is believed at once, in multiples of the body: real profiles inflate to two to six times theirs.
const TRUSTED_RATIO: usize = 7;

/// How much more room is given where that has not been enough.
const ROOM_GROWTH: usize = 4;

/// Deflate cannot do better than 1032:1 (two bits for a match of 258 bytes).
const DEFLATE_RATIO_MAX: u64 = 1032;

/// The level answers are compressed with: a fifth more than the smallest at several times the speed.
const LEVEL: i32 = 5;

/// Returns the profile in a body: inflated if it is gzip, the body itself if it is not.
///
/// # Errors
/// The body is empty, larger than the limits allow before or after inflating, damaged, or gzip inside gzip.
pub fn inflate<'a>(body: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, Error> {
    let bytes = body.len() as u64;
    if bytes > limits.body_bytes_max {
        return Err(Error::Body { bytes, limit: limits.body_bytes_max });
    }
    if !is_gzip(body) {
        return match bytes {
            0 => Err(Error::Empty),
            _ if bytes > limits.inflated_bytes_max => Err(Error::Inflated { limit: limits.inflated_bytes_max }),
            _ => Ok(Cow::Borrowed(body)),
        };
    }
    let by_ratio = INFLATE_RATIO_FREE_BYTES.max(bytes.saturating_mul(limits.inflate_ratio_max));
    let max = by_ratio.min(limits.inflated_bytes_max);
    let inflated = match inflate_single(body, max) {
        Some(inflated) => inflated,
        None => inflate_stream(body, max)?.ok_or(if max == limits.inflated_bytes_max {
            Error::Inflated { limit: max }
        } else {
            Error::InflateRatio { bytes, ratio: limits.inflate_ratio_max }
        })?,
    };
    if inflated.is_empty() {
        return Err(Error::Empty);
    }
    if is_gzip(&inflated) {
        return Err(Error::NestedGzip);
    }
    Ok(Cow::Owned(inflated))
}

/// Compresses bytes into one gzip member, without name and time, so that equal bytes give equal gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let level = CompressionLvl::new(LEVEL).expect("the level is one of libdeflate's");
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let len = compressor.gzip_compress(bytes, &mut out).expect("the bound is enough for any input");
    out.truncate(len);
    out
}

/// Returns whether bytes start as gzip does. The compression method is not looked at: an unknown one is damage.
fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC[..2])
}

/// Inflates a body that is one gzip member of a plausible size, at most `max` bytes; `None` where it is not, or may not be.
fn inflate_single(body: &[u8], max: u64) -> Option<Vec<u8>> {
    if body.len() < MEMBER_BYTES_MIN {
        return None;
    }
    let (_, trailer) = body.split_at_checked(body.len() - 8)?;
    let (crc, size) = trailer.split_at(4);
    let crc = u32::from_le_bytes(crc.try_into().ok()?);
    let size = u32::from_le_bytes(size.try_into().ok()?);
    if u64::from(size) > max.min(DEFLATE_RATIO_MAX * body.len() as u64) {
        return None;
    }
    // libdeflate stops after the first member and does not say where. Nothing is behind it if no other member can begin anywhere
    // and the last eight bytes are the trailer of what came out.
    if memchr::memmem::find(&body[MAGIC.len()..], &MAGIC).is_some() {
        return None;
    }
    // In a damaged body the trailer is anything; so more is only taken once that much has come out.
    let size = size as usize;
    let mut room = size.min(TRUSTED_RATIO * body.len());
    loop {
        let mut inflated = written(room);
        match Decompressor::new().gzip_decompress(body, &mut inflated) {
            Ok(len) => return (len == size && libdeflater::crc32(&inflated) == crc).then_some(inflated),
            Err(DecompressionError::InsufficientSpace) if room < size => room = size.min(room * ROOM_GROWTH),
            Err(_) => return None,
        }
    }
}

/// Inflates all members of a body; `None` where that is more than `max` bytes.
///
/// Counted first and kept then: what is refused takes no memory, and what is kept no more than it needs, whatever its trailer says.
fn inflate_stream(body: &[u8], max: u64) -> Result<Option<Vec<u8>>, Error> {
    let mut counted = MultiGzDecoder::new(body);
    let len = match std::io::copy(&mut counted.by_ref().take(max + 1), &mut std::io::sink()) {
        Ok(len) if len > max => return Ok(None),
        Ok(len) => len,
        // What went wrong inside (a code, the CRC, the end) does not help the sender; where may.
        Err(_) => return Err(Error::Gzip { byte: body.len() - counted.into_inner().len() }),
    };
    let mut inflated = Vec::with_capacity(usize::try_from(len).expect("the limit fits into memory"));
    MultiGzDecoder::new(body).read_to_end(&mut inflated).expect("it was read before");
    Ok(Some(inflated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const TEXT: &[u8] = b"\x0a\x04some bytes that are not gzip, long enough to make a member of its own";

    fn inflated(body: &[u8]) -> Vec<u8> {
        inflate(body, &Limits::default()).expect("it inflates").into_owned()
    }

    fn refusal(body: &[u8], limits: &Limits) -> (ErrorKind, String) {
        let error = inflate(body, limits).expect_err("it is refused");
        (error.kind(), error.to_string())
    }

    fn damage(body: &[u8]) -> String {
        let (kind, text) = refusal(body, &Limits::default());
        assert_eq!(kind, ErrorKind::Invalid);
        text
    }

    /// A gzip member with everything that its header may have.
    fn full_header(bytes: &[u8]) -> Vec<u8> {
        let encoder = flate2::GzBuilder::new().filename("cpu.pb").comment("a comment").extra([1, 2, 3]);
        let mut encoder = encoder.write(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).expect("a vector takes everything");
        encoder.finish().expect("a vector takes everything")
    }

    #[test]
    fn plain_bodies_are_borrowed_and_gzip_is_inflated() {
        assert!(matches!(inflate(TEXT, &Limits::default()), Ok(Cow::Borrowed(TEXT))));
        assert_eq!(inflated(&gzip(TEXT)), TEXT);
        assert_eq!(inflated(&full_header(TEXT)), TEXT);
        assert_eq!(gzip(TEXT), gzip(TEXT));
    }

    #[test]
    fn all_members_are_inflated_even_where_the_last_one_looks_like_all() {
        // With equal members the size and the CRC at the end are right for the first alone, too.
        assert_eq!(inflated(&[gzip(TEXT), gzip(TEXT)].concat()), [TEXT, TEXT].concat());
        assert_eq!(inflated(&[gzip(&TEXT[..9]), full_header(TEXT), gzip(b"")].concat()), [&TEXT[..9], TEXT].concat());
    }

    #[test]
    fn emptiness_is_said_before_and_after_inflating() {
        assert_eq!(damage(b""), "profile is empty");
        assert_eq!(damage(&gzip(b"")), "profile is empty");
        assert_eq!(damage(&[gzip(b""), gzip(b"")].concat()), "profile is empty");
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let body = gzip(TEXT);
        let len = body.len();
        for end in 2..len {
            let byte = damage(&body[..end]).strip_prefix("gzip stream is damaged at byte ").map(str::parse::<usize>);
            assert!(byte.is_some_and(|byte| byte.is_ok_and(|byte| byte <= end)), "cut at {end}");
        }
        let wrong_crc = [&body[..len - 8], &[!body[len - 8]], &body[len - 7..]].concat();
        assert_eq!(damage(&wrong_crc), format!("gzip stream is damaged at byte {len}"));
        let wrong_size = [&body[..len - 1], &[1]].concat();
        assert_eq!(damage(&wrong_size), format!("gzip stream is damaged at byte {len}"));
        let garbage = [&body[..], b"trailing garbage"].concat();
        assert!(damage(&garbage).starts_with("gzip stream is damaged at byte "));
        let zeros = [&body[..], &[0; 512]].concat();
        assert!(damage(&zeros).starts_with("gzip stream is damaged at byte "));
        let wrong_method = [&body[..2], &[9], &body[3..]].concat();
        assert!(damage(&wrong_method).starts_with("gzip stream is damaged at byte "));
    }

    /// Goal: one that inflates to far more than others is inflated, though its trailer is not believed at once.
    #[test]
    fn what_packs_well_is_inflated_whole() {
        for len in [300, 10_000, 100_000, 8 << 20] {
            let zeros = vec![0; len];
            assert!(inflated(&gzip(&zeros)) == zeros, "{len}");
        }
    }

    #[test]
    fn gzip_in_gzip_is_refused() {
        assert_eq!(damage(&gzip(&gzip(TEXT))), "gzip inside gzip");
    }

    #[test]
    fn sizes_are_limited_before_and_after() {
        let limits = Limits { body_bytes_max: 1 << 20, inflated_bytes_max: 16 << 20, ..Limits::default() };
        let (kind, text) = refusal(&vec![10; (1 << 20) + (1 << 18)], &limits);
        assert_eq!(kind, ErrorKind::TooLarge);
        assert_eq!(text, "body 1.2 MiB exceeds max_body 1 MiB (--limits.max-body)");
        let (_, text) = refusal(&vec![10; (1 << 20) + 9], &limits);
        assert_eq!(text, "body 1048585 B exceeds max_body 1 MiB (--limits.max-body)");
        let (_, text) = refusal(&[10; 11], &Limits { body_bytes_max: 10, ..limits.clone() });
        assert_eq!(text, "body 11 B exceeds max_body 10 B (--limits.max-body)");
        let (_, text) = refusal(&[10; 11], &Limits { inflated_bytes_max: 10, ..limits.clone() });
        assert_eq!(text, "profile inflates beyond 10 B (--limits.max-inflated)");

        // A mebibyte of noise does not compress, so neither body has a suspicious ratio.
        let noise = |bytes: usize| {
            let mut state = 1u64;
            let step = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            (0..bytes).map(step).collect::<Vec<_>>()
        };
        let mut large = noise(1 << 19);
        large.resize((16 << 20) + 1, 0);
        assert_eq!(inflated(&gzip(&large)).len(), large.len());
        for body in [gzip(&large), [gzip(&large[..1 << 20]), gzip(&large[1 << 20..])].concat()] {
            let (kind, text) = refusal(&body, &limits);
            assert_eq!(kind, ErrorKind::TooLarge);
            assert_eq!(text, "profile inflates beyond 16 MiB (--limits.max-inflated)");
        }
    }

    #[test]
    fn bombs_stop_at_the_ratio_and_small_ones_are_none() {
        let limits = Limits::default();
        let free = vec![0; 8 << 20];
        assert_eq!(inflated(&gzip(&free)).len(), free.len());
        let body = gzip(&vec![0; (8 << 20) + 1]);
        let (kind, text) = refusal(&body, &limits);
        assert_eq!(kind, ErrorKind::TooLarge);
        assert_eq!(
            text,
            format!(
                "profile inflates beyond 200 times its {:.1} KiB (--limits.max-inflate-ratio)",
                body.len() as f64 / 1024.0
            )
        );
        // The size at the end may lie in either direction.
        for size in [0u32, u32::MAX] {
            let mut lying = body.clone();
            let at = lying.len() - 4;
            lying[at..].copy_from_slice(&size.to_le_bytes());
            assert_eq!(refusal(&lying, &limits).1, text);
        }
    }
}
