package afterglow

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"github.com/afterglow-profiler/afterglow/agent/go/afterglowv1"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

const (
	// version goes into the user agent.
	version = "0.1.0"
	// firstWindowMax lets a program that has just started show soon.
	firstWindowMax = 5 * time.Second
	// connectTimeout is how long a connection may take to open.
	connectTimeout = 5 * time.Second
	// keepAliveInterval is below the 60 s after which load balancers commonly cut a silent connection.
	keepAliveInterval = 30 * time.Second
	// keepAliveTimeout is how long a probe may stay unanswered.
	keepAliveTimeout = 10 * time.Second
)

// Profiler profiles its program until it is stopped.
type Profiler struct {
	config   Config
	pusher   *pusher
	stopping chan struct{}
	stop     sync.Once
	// restore undoes what Start set in the runtime.
	restore []func()
	// recorded and pushed are closed when the goroutines have ended.
	recorded, pushed chan struct{}
	cancel           context.CancelFunc
}

// Start begins to profile. It does not wait for the server: that one does not answer is no error, profiles wait in the queue.
func Start(config Config) (*Profiler, error) {
	return start(config, defaultPushOptions)
}

func start(config Config, options pushOptions) (*Profiler, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	if config.Tenant != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-scope-orgid", config.Tenant)
	}
	if config.Token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+config.Token)
	}
	p := &Profiler{
		config: config,
		pusher: &pusher{
			dial:    func() (*grpc.ClientConn, error) { return dial(config) },
			queue:   newQueue(config.QueueBytes),
			options: options,
			log:     config.Logger,
		},
		stopping: make(chan struct{}),
		recorded: make(chan struct{}),
		pushed:   make(chan struct{}),
		cancel:   cancel,
	}
	p.setRates()
	go p.guard("record", p.recorded, p.record)
	go p.guard("push", p.pushed, func() { p.pusher.run(ctx) })
	return p, nil
}

// Stop ends the window, sends what there is and waits up to 10 s for the outcome. It may be called more than once.
func (p *Profiler) Stop() {
	p.stop.Do(func() {
		close(p.stopping)
		<-p.recorded
		for _, restore := range p.restore {
			restore()
		}
		p.pusher.queue.close()
		select {
		case <-p.pushed:
		case <-time.After(p.pusher.options.stopTimeout):
			p.cancel()
			<-p.pushed
		}
		p.cancel()
	})
}

// Stats returns what has been done so far.
func (p *Profiler) Stats() Stats {
	return p.pusher.stats()
}

func dial(config Config) (*grpc.ClientConn, error) {
	target, credentials, err := dialTarget(config.Server, config.TLS)
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials),
		grpc.WithUserAgent("afterglow-go/" + version),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: grpcbackoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAliveInterval, Timeout: keepAliveTimeout}),
	}
	return grpc.NewClient(target, append(options, config.DialOptions...)...)
}

// guard runs one of the goroutines. Whatever is wrong with the profiler must not take the program down.
func (p *Profiler) guard(name string, done chan<- struct{}, run func()) {
	defer close(done)
	defer func() {
		if cause := recover(); cause != nil {
			p.config.Logger.Error("afterglow: the profiler has stopped", "goroutine", name, "panic", fmt.Sprint(cause))
		}
	}()
	run()
}

// setRates turns on the sampling of mutexes and blocking where it is asked for, and only there.
func (p *Profiler) setRates() {
	if slices.Contains(p.config.Types, Mutex) {
		before := runtime.SetMutexProfileFraction(-1)
		fraction := p.config.MutexFraction
		if fraction == 0 && before == 0 {
			fraction = defaultMutexFraction
		}
		if fraction > 0 {
			runtime.SetMutexProfileFraction(fraction)
			p.restore = append(p.restore, func() { runtime.SetMutexProfileFraction(before) })
		}
	}
	if slices.Contains(p.config.Types, Block) {
		// The runtime does not tell the rate before.
		runtime.SetBlockProfileRate(p.config.BlockRate)
		p.restore = append(p.restore, func() { runtime.SetBlockProfileRate(0) })
	}
}

// record takes window after window.
func (p *Profiler) record() {
	window := min(p.config.Period, firstWindowMax)
	for stopping := false; !stopping; window = p.config.Period {
		stopping = p.recordWindow(window)
		for _, t := range p.config.Types {
			if t != CPU {
				p.snapshot(t)
			}
		}
	}
}

// recordWindow waits for the end of a window, profiling the CPU if that is wanted, and returns whether the profiler is being stopped.
func (p *Profiler) recordWindow(window time.Duration) (stopping bool) {
	var cpu bytes.Buffer
	profiling := false
	if slices.Contains(p.config.Types, CPU) {
		if err := pprof.StartCPUProfile(&cpu); err != nil {
			// Somebody else profiles, such as a request to /debug/pprof/profile; the next window is ours again.
			p.config.Logger.Info("afterglow: no CPU profile of this window", "error", err)
		} else {
			profiling = true
		}
	}
	select {
	case <-time.After(window):
	case <-p.stopping:
		stopping = true
	}
	if profiling {
		pprof.StopCPUProfile()
		p.push(CPU, cpu.Bytes())
	}
	return stopping
}

func (p *Profiler) snapshot(t Type) {
	var buffer bytes.Buffer
	if err := pprof.Lookup(string(t)).WriteTo(&buffer, 0); err != nil {
		p.config.Logger.Warn("afterglow: cannot take a profile", "type", string(t), "error", err)
		return
	}
	p.push(t, buffer.Bytes())
}

func (p *Profiler) push(t Type, pprof []byte) {
	p.pusher.push(&afterglowv1.Profile{
		Id:     newID(time.Now()),
		Type:   string(t),
		Labels: p.config.Labels,
		Pprof:  pprof,
	})
}
