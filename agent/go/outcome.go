package afterglow

import (
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// verdict is what the answer to one profile asks for.
type verdict int

const (
	// acked: it is durable.
	acked verdict = iota
	// again: send it again with the same id.
	again
	// refused: it would be refused again.
	refused
)

// judge returns what an answer asks for, and how long to wait where the server says so. A retry helps where the server sends
// google.rpc.RetryInfo, and after statuses that speak of the moment and not of the profile.
func judge(answer *rpcstatus.Status) (verdict, time.Duration) {
	s := status.FromProto(answer)
	if s.Code() == codes.OK {
		return acked, 0
	}
	delay, ok := retryDelay(s)
	switch s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
		ok = true
	}
	if ok {
		return again, delay
	}
	return refused, 0
}

// broken is what the end of a stream says of the profiles that were under way on it.
type broken int

const (
	// passing: nothing; send them again.
	passing broken = iota
	// denied: this client may not push; its profiles wait until it may.
	denied
	// suspect: one of them may be the reason; sent one at a time, the guilty one shows.
	suspect
)

func judgeStream(s *status.Status) broken {
	switch s.Code() {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return denied
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.NotFound:
		return suspect
	case codes.ResourceExhausted:
		if _, ok := retryDelay(s); !ok {
			return suspect
		}
	}
	// Unknown and Internal are what a connection that broke in mid-stream looks like.
	return passing
}

// retryDelay returns the delay of google.rpc.RetryInfo, and whether there is one.
func retryDelay(s *status.Status) (time.Duration, bool) {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

// backoff is how long to wait between tries: a random time up to base * 2^attempt, at most max. The whole range is random, so that a
// fleet that lost its server together does not return together.
type backoff struct {
	base, max time.Duration
}

// wait returns the wait after so many failures, never less than what the server asked for.
func (b backoff) wait(attempts int, asked time.Duration) time.Duration {
	ceiling := b.max
	if attempts < 32 && b.base<<attempts < b.max {
		ceiling = b.base << attempts
	}
	return max(asked, time.Duration(rand.Float64()*float64(ceiling)))
}
