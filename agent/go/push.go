package afterglow

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/afterglow-profiler/afterglow/agent/go/afterglowv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// chunkBytesMax is the most of a pprof in one message: gRPC servers and proxies commonly take 4 MiB.
	chunkBytesMax = 1 << 20
	// tick is how often deadlines and delays are looked at while there is something to push.
	tick = 100 * time.Millisecond
	// goodbyeTimeout is how long the server may take to end a stream in which nothing is under way.
	goodbyeTimeout = 2 * time.Second
	// closingWaitMax bounds the wait before the next try once the profiler is being stopped.
	closingWaitMax = 500 * time.Millisecond
)

// pushOptions is how the pusher behaves; only tests have other values than defaultPushOptions.
type pushOptions struct {
	// inFlightMax is the most profiles under way on the stream.
	inFlightMax int
	// deadline is how long one profile is tried.
	deadline time.Duration
	// answerTimeout is how long the server may leave everything that is under way unanswered.
	answerTimeout time.Duration
	// streamAge is how long a stream lives: a new connection lets a load balancer choose again.
	streamAge time.Duration
	// stopTimeout is how long Stop waits for the outcome of the last profiles.
	stopTimeout time.Duration
	backoff     backoff
}

var defaultPushOptions = pushOptions{
	inFlightMax:   16,
	deadline:      time.Hour,
	answerTimeout: 30 * time.Second,
	streamAge:     15 * time.Minute,
	stopTimeout:   10 * time.Second,
	backoff:       backoff{base: time.Second, max: 5 * time.Minute},
}

// Stats is what a profiler has done so far with the profiles it took.
type Stats struct {
	// Accepted were taken into the queue.
	Accepted uint64
	// Acked are durable; of these, Duplicates had been before.
	Acked, Duplicates uint64
	// Refused were refused for good, Expired given up at their deadline, Dropped for want of room.
	Refused, Expired, Dropped uint64
	// Retries are answers that asked for another try, Streams the streams opened.
	Retries, Streams uint64
	// Queued is how many profiles have no outcome yet, QueuedBytes what they take.
	Queued, QueuedBytes int
}

type counters struct {
	accepted, acked, duplicates, refused, expired, dropped, retries, streams atomic.Uint64
}

// pusher keeps a stream while there is something to push, until its queue is closed and empty.
type pusher struct {
	dial     func() (*grpc.ClientConn, error)
	queue    *queue
	options  pushOptions
	counters counters
	log      *slog.Logger
}

// push takes a profile in. It never waits.
func (p *pusher) push(profile *afterglowv1.Profile) {
	dropped, ok := p.queue.offer(&item{profile: profile, deadline: time.Now().Add(p.options.deadline)})
	if ok {
		p.counters.accepted.Add(1)
	} else {
		dropped++
	}
	if dropped > 0 {
		p.counters.dropped.Add(uint64(dropped))
		p.log.Warn("afterglow: the queue is full, dropped the oldest profiles", "profiles", dropped)
	}
}

func (p *pusher) stats() Stats {
	queued, queuedBytes, _ := p.queue.state()
	c := &p.counters
	return Stats{
		Accepted: c.accepted.Load(), Acked: c.acked.Load(), Duplicates: c.duplicates.Load(), Refused: c.refused.Load(),
		Expired: c.expired.Load(), Dropped: c.dropped.Load(), Retries: c.retries.Load(), Streams: c.streams.Load(),
		Queued: queued, QueuedBytes: queuedBytes,
	}
}

func (p *pusher) run(ctx context.Context) {
	failures, alone := 0, false
	for p.waitForWork(ctx) {
		s := &session{pusher: p, alone: alone, underWay: map[uint64]*item{}, lastProgress: time.Now()}
		err := s.run(ctx)
		if s.answers > 0 {
			failures, alone = 0, false
		}
		if err == nil || ctx.Err() != nil {
			s.giveBack()
			continue
		}
		stat := status.Convert(err)
		// A server that stays away is worth a line when it goes, not for each try.
		level := slog.LevelDebug
		if failures == 0 {
			level = slog.LevelWarn
		}
		p.log.Log(ctx, level, "afterglow: the push stream broke", "code", stat.Code().String(), "error", stat.Message(),
			"under_way", len(s.underWay), "failures", failures)
		if judgeStream(stat) == suspect {
			if len(s.underWay) > 1 {
				alone = true
			} else {
				s.refuseAll()
			}
		}
		s.giveBack()
		asked, _ := retryDelay(stat)
		p.pause(ctx, p.options.backoff.wait(failures, asked))
		failures++
	}
}

// waitForWork waits until something is queued. It returns false when nothing ever will be.
func (p *pusher) waitForWork(ctx context.Context) bool {
	for ctx.Err() == nil {
		items, _, closed := p.queue.state()
		if items > 0 || closed {
			return items > 0
		}
		select {
		case <-p.queue.wake:
		case <-ctx.Done():
		}
	}
	return false
}

// pause waits between tries, gives up on profiles at their deadlines, and does not wait long when the queue is closed.
func (p *pusher) pause(ctx context.Context, wait time.Duration) {
	began := time.Now()
	for ctx.Err() == nil {
		p.expireWaiting()
		_, _, closed := p.queue.state()
		left := wait - time.Since(began)
		if closed {
			left = min(left, closingWaitMax-time.Since(began))
		}
		if left <= 0 {
			return
		}
		select {
		case <-time.After(min(left, tick)):
		case <-ctx.Done():
		}
	}
}

func (p *pusher) expireWaiting() {
	p.expired(p.queue.expire(time.Now()))
}

func (p *pusher) expired(profiles int) {
	if profiles > 0 {
		p.counters.expired.Add(uint64(profiles))
		p.log.Warn("afterglow: gave up on profiles at their deadline", "profiles", profiles)
	}
}

// session is one stream. It owns the profiles under way on it; when it ends each of them is settled or back in the queue.
type session struct {
	*pusher
	// alone sends one profile at a time, to find the one that breaks the stream.
	alone    bool
	seq      uint64
	underWay map[uint64]*item
	// chunks is the rest of the profile that is being sent in pieces, whose seq is the last one.
	chunks []byte
	// holdUntil is set when the server has too much to do.
	holdUntil    time.Time
	lastProgress time.Time
	answers      int
}

// run connects and runs the stream to its end; nil means that nothing failed.
func (s *session) run(ctx context.Context) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := afterglowv1.NewIngestServiceClient(conn).Push(ctx)
	if err != nil {
		return err
	}
	s.counters.streams.Add(1)
	retireAt := time.Now().Add(time.Duration(float64(s.options.streamAge) * (0.75 + rand.Float64()/2)))
	s.lastProgress = time.Now()

	answers := make(chan *afterglowv1.PushResponse, s.options.inFlightMax)
	ended := make(chan error, 1)
	go receive(ctx, stream, answers, ended)
	looked := time.Now()
	for {
		items, _, closed := s.queue.state()
		now := time.Now()
		retiring := now.After(retireAt)
		if (closed && items == 0) || (retiring && len(s.underWay) == 0) {
			return s.sayGoodbye(stream, ended)
		}
		if now.Sub(looked) >= tick {
			looked = now
			s.expire()
			if len(s.underWay) > 0 && now.Sub(s.lastProgress) >= s.options.answerTimeout {
				return errSilent
			}
		}
		// What has come goes before what is to be sent: it makes room.
		select {
		case answer := <-answers:
			s.settle(answer)
			continue
		default:
		}
		if request := s.next(now, retiring); request != nil {
			// A server that takes nothing would hold Send up for ever.
			watchdog := time.AfterFunc(s.options.answerTimeout, cancel)
			err := stream.Send(request)
			watchdog.Stop()
			if err != nil {
				// Why the stream ended comes from the receiving side.
				return s.endOf(<-ended)
			}
			continue
		}
		var later <-chan time.Time
		if items > 0 {
			later = time.After(tick)
		}
		select {
		case answer := <-answers:
			s.settle(answer)
		case err := <-ended:
			return s.endOf(err)
		case <-s.queue.wake:
		case <-later:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errSilent ends a stream whose server does not answer. It reads as Unknown: the profiles are sent again.
var errSilent = errors.New("no answer in time")

// receive hands answers on until the stream ends.
func receive(
	ctx context.Context,
	stream grpc.BidiStreamingClient[afterglowv1.PushRequest, afterglowv1.PushResponse],
	answers chan<- *afterglowv1.PushResponse,
	ended chan<- error,
) {
	for {
		answer, err := stream.Recv()
		if err != nil {
			ended <- err
			return
		}
		select {
		case answers <- answer:
		case <-ctx.Done():
			ended <- ctx.Err()
			return
		}
	}
}

// endOf returns what it means that the server ended the stream: nothing, when it did its work, for servers shut down and spread their load.
func (s *session) endOf(err error) error {
	if errors.Is(err, io.EOF) {
		err = status.Error(codes.Unavailable, "the server ended the stream")
	}
	if len(s.underWay) == 0 && s.answers > 0 && status.Code(err) == codes.Unavailable {
		return nil
	}
	return err
}

// sayGoodbye ends the sending side and lets the server end the stream.
func (s *session) sayGoodbye(
	stream grpc.BidiStreamingClient[afterglowv1.PushRequest, afterglowv1.PushResponse],
	ended <-chan error,
) error {
	if stream.CloseSend() == nil {
		select {
		case <-ended:
		case <-time.After(goodbyeTimeout):
		}
	}
	return nil
}

// next returns the next message, the next chunk or the next profile (or its header), or nil where there is nothing to send now.
func (s *session) next(now time.Time, retiring bool) *afterglowv1.PushRequest {
	if len(s.chunks) > 0 {
		n := min(len(s.chunks), chunkBytesMax)
		data := s.chunks[:n]
		s.chunks = s.chunks[n:]
		// A slow line takes long for a large profile; that is not silence.
		s.lastProgress = now
		return &afterglowv1.PushRequest{
			Seq: s.seq, Part: &afterglowv1.PushRequest_Chunk{Chunk: &afterglowv1.ProfileChunk{Data: data}},
		}
	}
	inFlightMax := s.options.inFlightMax
	if s.alone {
		inFlightMax = 1
	}
	if retiring || now.Before(s.holdUntil) || len(s.underWay) >= inFlightMax {
		return nil
	}
	i := s.queue.take(now)
	if i == nil {
		return nil
	}
	if len(s.underWay) == 0 {
		s.lastProgress = now
	}
	s.seq++
	s.underWay[s.seq] = i
	if len(i.profile.Pprof) <= chunkBytesMax {
		return &afterglowv1.PushRequest{Seq: s.seq, Part: &afterglowv1.PushRequest_Profile{Profile: i.profile}}
	}
	s.chunks = i.profile.Pprof
	header := &afterglowv1.ProfileHeader{
		Profile: &afterglowv1.Profile{Id: i.profile.Id, Type: i.profile.Type, Labels: i.profile.Labels},
		Size:    uint64(len(i.profile.Pprof)),
	}
	return &afterglowv1.PushRequest{Seq: s.seq, Part: &afterglowv1.PushRequest_Header{Header: header}}
}

// settle carries out what one answer says.
func (s *session) settle(answer *afterglowv1.PushResponse) {
	s.answers++
	s.lastProgress = time.Now()
	i := s.underWay[answer.Seq]
	if i == nil {
		// An answer to a profile given up meanwhile, or a second one.
		return
	}
	delete(s.underWay, answer.Seq)
	if answer.Seq == s.seq {
		s.chunks = nil
	}
	switch what, delay := judge(answer.Status); what {
	case acked:
		s.counters.acked.Add(1)
		if answer.Duplicate {
			s.counters.duplicates.Add(1)
		}
	case again:
		s.counters.retries.Add(1)
		i.notBefore = time.Now().Add(s.options.backoff.wait(i.attempts, delay))
		i.attempts++
		if codes.Code(answer.Status.GetCode()) == codes.ResourceExhausted && i.notBefore.After(s.holdUntil) {
			s.holdUntil = i.notBefore
		}
		s.queue.putBack(i)
		return
	case refused:
		s.counters.refused.Add(1)
		s.log.Warn("afterglow: the server refused a profile", "id", i.profile.Id, "type", i.profile.Type,
			"error", answer.Status.GetMessage())
	}
	s.queue.settle(i)
}

// expire gives up on what is past its deadline, here and in the queue.
func (s *session) expire() {
	s.expireWaiting()
	now, expired := time.Now(), 0
	for seq, i := range s.underWay {
		if !i.deadline.After(now) {
			// Its chunks go on: the server counts bytes.
			delete(s.underWay, seq)
			s.queue.settle(i)
			expired++
		}
	}
	s.expired(expired)
}

// giveBack returns all that is under way to the queue, in the order it was sent.
func (s *session) giveBack() {
	items := make([]*item, 0, len(s.underWay))
	for seq := uint64(1); seq <= s.seq; seq++ {
		if i := s.underWay[seq]; i != nil {
			items = append(items, i)
		}
	}
	clear(s.underWay)
	s.queue.putBack(items...)
}

// refuseAll gives up on all that is under way.
func (s *session) refuseAll() {
	for _, i := range s.underWay {
		s.counters.refused.Add(1)
		s.queue.settle(i)
	}
	clear(s.underWay)
}
