//! gzip: what senders wrap a profile in, and what it is answered in.
//!
//! A profile nearly always comes as one gzip member with its size at the end; then libdeflate inflates it into one buffer of that
//! size. Everything else (several members, a size that cannot be right, damage) takes a streaming decoder that stops at the limit and
//! knows how far it came. Both check the CRC.

use crate::error::Error;
use crate::limits::{INFLATE_RATIO_FREE_BYTES, Limits};
use flate2::bufread::MultiGzDecoder;
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use std::borrow::Cow;
use std::io::Read;

/// What gzip starts with: RFC 1952, section 2.3.1; the third byte is its only compression method.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// The fewest bytes of a gzip member: a header of 10, an empty deflate stream of 2, a trailer of 8.
const MEMBER_BYTES_MIN: usize = 20;

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
        None => inflate_stream(body, max)?,
    };
    if inflated.len() as u64 > max {
        return Err(if max == limits.inflated_bytes_max {
            Error::Inflated { limit: max }
        } else {
            Error::InflateRatio { bytes, ratio: limits.inflate_ratio_max }
        });
    }
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
    let mut inflated = vec![0; size as usize];
    let len = Decompressor::new().gzip_decompress(body, &mut inflated).ok()?;
    (len == inflated.len() && libdeflater::crc32(&inflated) == crc).then_some(inflated)
}

/// Inflates all members of a body, and at most one byte more than `max`.
fn inflate_stream(body: &[u8], max: u64) -> Result<Vec<u8>, Error> {
    let mut decoder = MultiGzDecoder::new(body);
    let mut inflated = Vec::new();
    match decoder.by_ref().take(max + 1).read_to_end(&mut inflated) {
        Ok(_) => Ok(inflated),
        // What went wrong inside (a code, the CRC, the end) does not help the sender; where may.
        Err(_) => Err(Error::Gzip { byte: body.len() - decoder.into_inner().len() }),
    }
}
