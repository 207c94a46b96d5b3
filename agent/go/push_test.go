package afterglow

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/afterglow-profiler/afterglow/agent/go/afterglowv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pushAll pushes n profiles and waits until each has its outcome; it returns their ids.
func pushAll(t *testing.T, p *pusher, n int) []string {
	t.Helper()
	ids := make([]string, n)
	for i := range n {
		pushed := profile(i, 100+i)
		ids[i] = pushed.Id
		p.push(pushed)
	}
	waitUntil(t, func() bool { return p.stats().Queued == 0 })
	return ids
}

// Goal: each profile is acknowledged, once, though streams break, end, and answer in any order.
func TestEachProfileIsAckedOnceWhateverTheStreamsDo(t *testing.T) {
	f := newFake(t, func(n int, _ *afterglowv1.Profile) act {
		switch n % 13 {
		case 2:
			return act{store: true, later: true}
		case 3:
			return act{store: true, breaks: status.Error(codes.Unknown, "connection reset")}
		case 5:
			return refusing(codes.Unavailable, time.Millisecond)
		case 7:
			return act{breaks: status.Error(codes.Unavailable, "broken on purpose")}
		case 9:
			return refusing(codes.ResourceExhausted, 2*time.Millisecond)
		}
		return ack
	})
	p := f.pushing(t, quick())
	ids := pushAll(t, p, 200)
	stats := p.stats()
	if stats.Acked != 200 || stats.Refused+stats.Expired+stats.Dropped != 0 || stats.QueuedBytes != 0 {
		t.Errorf("%+v", stats)
	}
	if stats.Streams < 10 || stats.Duplicates == 0 {
		t.Errorf("streams must have broken after a profile was stored: %+v", stats)
	}
	for _, id := range ids {
		if f.stored[id] == nil {
			t.Errorf("%s was acknowledged and is not there", id)
		}
	}
}

func TestNothingIsLostOver20Restarts(t *testing.T) {
	const restarts, storedPerLife = 20, 25
	lives := 1
	var f *fake
	f = newFake(t, func(n int, _ *afterglowv1.Profile) act {
		if lives <= restarts && len(f.stored) >= lives*storedPerLife {
			// It lives no longer than this, so that each life is cut short in mid-stream.
			return act{never: true}
		}
		return act{store: true, later: n%7 == 0}
	})
	options := quick()
	options.inFlightMax = 4
	p := f.pushing(t, options)
	go func() {
		for range restarts {
			f.waitUntil(func() bool { return len(f.stored) >= lives*storedPerLife })
			f.kill()
			f.mu.Lock()
			lives++
			f.mu.Unlock()
			f.serve()
		}
	}()
	ids := pushAll(t, p, 600)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if f.stored[id] == nil {
			t.Errorf("%s is lost", id)
		}
	}
	if stats := p.stats(); stats.Acked != 600 || stats.Streams <= restarts {
		t.Errorf("%+v", stats)
	}
}

func TestARefusedProfileIsNotSentAgainAndTheStreamGoesOn(t *testing.T) {
	f := newFake(t, func(_ int, profile *afterglowv1.Profile) act {
		switch profile.Labels["service"] {
		case "s3":
			return refusing(codes.InvalidArgument, 0)
		case "s5":
			return refusing(codes.ResourceExhausted, 0)
		}
		return ack
	})
	p := f.pushing(t, quick())
	pushAll(t, p, 10)
	if stats := p.stats(); stats.Acked != 8 || stats.Refused != 2 || stats.Streams != 1 || f.received != 10 {
		t.Errorf("%+v, received %d", stats, f.received)
	}
}

func TestRetryInfoIsALowerBoundForAll(t *testing.T) {
	const delay = 300 * time.Millisecond
	f := newFake(t, func(n int, _ *afterglowv1.Profile) act {
		if n == 1 {
			return refusing(codes.ResourceExhausted, delay)
		}
		return ack
	})
	options := quick()
	options.inFlightMax = 1
	p := f.pushing(t, options)
	pushAll(t, p, 3)
	if len(f.arrivals) != 4 || p.stats().Retries != 1 {
		t.Fatalf("%d arrivals, %+v", len(f.arrivals), p.stats())
	}
	for _, at := range f.arrivals[1:] {
		if at.Sub(f.arrivals[0]) < delay {
			t.Errorf("a profile came %v after the server asked for %v", at.Sub(f.arrivals[0]), delay)
		}
	}
}

func TestALargeProfileGoesInChunks(t *testing.T) {
	f := newFake(t, func(n int, _ *afterglowv1.Profile) act {
		if n == 1 {
			return act{breaks: status.Error(codes.Internal, "broken on purpose")}
		}
		return ack
	})
	p := f.pushing(t, quick())
	large, small := profile(1, 9<<20+17), profile(2, 100)
	p.push(large)
	p.push(small)
	waitUntil(t, func() bool { return p.stats().Acked == 2 })
	stored := f.stored[large.Id]
	if !bytes.Equal(stored.Pprof, large.Pprof) || stored.Labels["service"] != "s1" || stored.Type != "cpu" {
		t.Error("it did not arrive whole")
	}
}

func TestAProfileThatBreaksTheStreamIsFoundAndRefusedAlone(t *testing.T) {
	f := newFake(t, func(_ int, profile *afterglowv1.Profile) act {
		if profile.Labels["service"] == "s4" {
			return act{breaks: status.Error(codes.OutOfRange, "broken on purpose")}
		}
		return ack
	})
	p := f.pushing(t, quick())
	pushAll(t, p, 10)
	if stats := p.stats(); stats.Acked != 9 || stats.Refused != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestWithoutPermissionProfilesAreKeptUntilThereIs(t *testing.T) {
	f := newFake(t, func(int, *afterglowv1.Profile) act { return ack })
	f.denies = codes.Unauthenticated
	p := f.pushing(t, quick())
	for n := range 5 {
		p.push(profile(n, 10))
	}
	waitUntil(t, func() bool { return p.stats().Streams >= 3 })
	f.mu.Lock()
	f.denies = codes.OK
	f.mu.Unlock()
	waitUntil(t, func() bool { return p.stats().Acked == 5 })
}

func TestASilentServerCountsAsDead(t *testing.T) {
	f := newFake(t, func(n int, _ *afterglowv1.Profile) act { return act{store: true, never: n <= 3} })
	options := quick()
	options.answerTimeout = 200 * time.Millisecond
	p := f.pushing(t, options)
	pushAll(t, p, 3)
	if stats := p.stats(); stats.Acked != 3 || stats.Streams != 2 {
		t.Errorf("%+v", stats)
	}
}

func TestAtItsDeadlineAProfileIsGivenUp(t *testing.T) {
	f := newFake(t, func(int, *afterglowv1.Profile) act { return refusing(codes.Unavailable, 0) })
	options := quick()
	options.deadline = 300 * time.Millisecond
	p := f.pushing(t, options)
	pushAll(t, p, 4)
	if stats := p.stats(); stats.Expired != 4 || stats.QueuedBytes != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestAnOldStreamIsReplacedWithoutAFailure(t *testing.T) {
	f := newFake(t, func(int, *afterglowv1.Profile) act { return ack })
	options := quick()
	options.streamAge = time.Millisecond
	p := f.pushing(t, options)
	for range 5 {
		pushAll(t, p, 1)
		time.Sleep(2 * time.Millisecond)
	}
	if stats := p.stats(); stats.Streams < 4 || stats.Acked != 5 || f.received != 5 {
		t.Errorf("%+v, received %d", stats, f.received)
	}
}

// Goal: to push never waits, whatever the server does; memory stays bounded and the newest profiles are kept.
func TestPushNeverBlocksAndDropsTheOldest(t *testing.T) {
	f := newFake(t, func(int, *afterglowv1.Profile) act { return ack })
	config := f.config()
	// A connection that never opens.
	hanging := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	config.DialOptions = []grpc.DialOption{hanging}
	config.QueueBytes = 20_000
	config.Types = []Type{Goroutine}
	options := quick()
	options.stopTimeout = 100 * time.Millisecond
	began := time.Now()
	profiler, err := start(config, options)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 1000 {
		profiler.pusher.push(profile(n, 1000))
		if bytes := profiler.Stats().QueuedBytes; bytes > config.QueueBytes {
			t.Fatalf("%d bytes are queued", bytes)
		}
	}
	profiler.Stop()
	profiler.Stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	stats := profiler.Stats()
	if stats.Accepted < 1000 || stats.Dropped+uint64(stats.Queued) != stats.Accepted || stats.Queued < 5 {
		t.Errorf("%+v", stats)
	}
}
