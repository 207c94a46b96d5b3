package afterglow

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/afterglow-profiler/afterglow/agent/go/afterglowv1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
)

// act is what the fake does with a profile.
type act struct {
	// store it (or not), then...
	store bool
	// ...answer it so; nil acknowledges.
	answer *status.Status
	// breaks the stream with this instead of an answer.
	breaks error
	// later answers it after the next one; never not at all.
	later, never bool
}

var ack = act{store: true}

// fake is an ingester that answers as its script says.
type fake struct {
	afterglowv1.UnimplementedIngestServiceServer
	// script gets the number of the profile, from 1, over all streams.
	script func(n int, profile *afterglowv1.Profile) act

	mu       sync.Mutex
	changed  *sync.Cond
	listener *bufconn.Listener
	server   *grpc.Server
	received int
	streams  int
	denies   codes.Code
	stored   map[string]*afterglowv1.Profile
	arrivals []time.Time
	metadata metadata.MD
}

func newFake(t *testing.T, script func(n int, profile *afterglowv1.Profile) act) *fake {
	f := &fake{script: script, stored: map[string]*afterglowv1.Profile{}}
	f.changed = sync.NewCond(&f.mu)
	f.serve()
	t.Cleanup(f.kill)
	return f
}

func (f *fake) serve() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener = bufconn.Listen(1 << 20)
	f.server = grpc.NewServer()
	afterglowv1.RegisterIngestServiceServer(f.server, f)
	go func(server *grpc.Server, listener net.Listener) { _ = server.Serve(listener) }(f.server, f.listener)
}

// kill closes the listener and all connections at once.
func (f *fake) kill() {
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	server.Stop()
}

// dialer reaches whatever server runs at the moment.
func (f *fake) dialer() grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		f.mu.Lock()
		listener := f.listener
		f.mu.Unlock()
		return listener.DialContext(ctx)
	})
}

func (f *fake) config() Config {
	return Config{
		Server: "http://127.0.0.1:4100", Service: "tested",
		DialOptions: []grpc.DialOption{f.dialer()}, Logger: slog.New(slog.DiscardHandler),
	}
}

// waitUntil waits for a condition on what the fake has seen.
func (f *fake) waitUntil(condition func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !condition() {
		f.changed.Wait()
	}
}

func (f *fake) Push(stream grpc.BidiStreamingServer[afterglowv1.PushRequest, afterglowv1.PushResponse]) error {
	f.mu.Lock()
	f.streams++
	f.metadata, _ = metadata.FromIncomingContext(stream.Context())
	denies := f.denies
	f.mu.Unlock()
	if denies != codes.OK {
		return status.Error(denies, "not for you")
	}
	parts := map[uint64]*afterglowv1.Profile{}
	sizes := map[uint64]uint64{}
	var later []*afterglowv1.PushResponse
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil
		}
		var profile *afterglowv1.Profile
		switch part := request.Part.(type) {
		case *afterglowv1.PushRequest_Profile:
			profile = part.Profile
		case *afterglowv1.PushRequest_Header:
			parts[request.Seq], sizes[request.Seq] = part.Header.Profile, part.Header.Size
			continue
		case *afterglowv1.PushRequest_Chunk:
			profile = parts[request.Seq]
			profile.Pprof = append(profile.Pprof, part.Chunk.Data...)
			if uint64(len(profile.Pprof)) < sizes[request.Seq] {
				continue
			}
		default:
			return status.Error(codes.InvalidArgument, "a request without a part")
		}
		what, answer := f.take(request.Seq, profile)
		if what.breaks != nil {
			return what.breaks
		}
		if what.never {
			continue
		}
		if what.later {
			later = append(later, answer)
			continue
		}
		for _, answer := range append([]*afterglowv1.PushResponse{answer}, later...) {
			if stream.Send(answer) != nil {
				return nil
			}
		}
		later = nil
	}
}

func (f *fake) take(seq uint64, profile *afterglowv1.Profile) (act, *afterglowv1.PushResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.received++
	f.arrivals = append(f.arrivals, time.Now())
	what := f.script(f.received, profile)
	answer := &afterglowv1.PushResponse{Seq: seq, Id: profile.Id}
	if what.store {
		_, answer.Duplicate = f.stored[profile.Id]
		f.stored[profile.Id] = profile
	}
	if what.answer != nil {
		answer.Status = what.answer.Proto()
	}
	f.changed.Broadcast()
	return what, answer
}

// refusing answers with a code, and a delay where it is not 0.
func refusing(code codes.Code, delay time.Duration) act {
	s := status.New(code, "said on purpose")
	if delay > 0 {
		with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
		if err != nil {
			panic(err)
		}
		s = with
	}
	return act{answer: s}
}

// quick is how tests push: failures are to be got over within milliseconds.
func quick() pushOptions {
	options := defaultPushOptions
	options.backoff = backoff{base: 5 * time.Millisecond, max: 50 * time.Millisecond}
	options.deadline = 30 * time.Second
	// The last profile may be one that is answered after the next.
	options.answerTimeout = time.Second
	return options
}

// pushing runs a pusher against the fake until the test ends.
func (f *fake) pushing(t *testing.T, options pushOptions) *pusher {
	config, err := f.config().withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	p := &pusher{
		dial:  func() (*grpc.ClientConn, error) { return dial(config) },
		queue: newQueue(64 << 20), options: options, log: config.Logger,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

// profile makes the n-th profile of a test.
func profile(n, size int) *afterglowv1.Profile {
	pprof := make([]byte, size)
	for i := range pprof {
		pprof[i] = byte(i*31 + n)
	}
	return &afterglowv1.Profile{
		Id: newID(time.Now()), Type: "cpu", Labels: map[string]string{"service": fmt.Sprintf("s%d", n)}, Pprof: pprof,
	}
}

// waitUntil waits for a condition that nobody signals.
func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come true")
		}
	}
}
