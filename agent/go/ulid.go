package afterglow

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// crockford is the alphabet of Crockford's base32.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newID mints a ULID (github.com/ulid/spec): 48 bits of unix milliseconds and 80 random bits, as 26 characters.
func newID(now time.Time) string {
	var bits [16]byte
	binary.BigEndian.PutUint64(bits[:8], uint64(now.UnixMilli())<<16)
	// It never fails, says its documentation.
	_, _ = rand.Read(bits[6:])
	return encodeID(bits)
}

// encodeID writes 128 bits as 26 digits of 5 bits; the first has only 3.
func encodeID(bits [16]byte) string {
	high, low := binary.BigEndian.Uint64(bits[:8]), binary.BigEndian.Uint64(bits[8:])
	var text [26]byte
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = crockford[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return string(text[:])
}
