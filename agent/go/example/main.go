// Example is a program with a known profile, which profiles itself by the SDK, or serves /debug/pprof to be scraped, or both.
//
// Three quarters of its CPU time are spent in threeQuarters, one quarter in oneQuarter, under the pprof labels share=3/4 and share=1/4.
// It holds 32 MiB allocated in hold, and its workers contend for a mutex in contend.
//
//	go run ./example -server http://127.0.0.1:4100 -service demo
//	go run ./example -server '' -http 127.0.0.1:6060
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	runtimepprof "runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	afterglow "github.com/afterglow-profiler/afterglow/agent/go"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	server := flag.String("server", "http://127.0.0.1:4100", "where profiles are sent by the SDK; empty for nowhere")
	service := flag.String("service", "example", "the label service")
	address := flag.String("http", "", "where /debug/pprof is served; empty for nowhere")
	types := flag.String("types", "cpu,heap,goroutine,mutex,block", "what the SDK profiles")
	period := flag.Duration("period", 0, "how long a window of the SDK is; 0 for its default")
	duration := flag.Duration("duration", 0, "how long to run; 0 for until a signal comes")
	workers := flag.Int("workers", 1, "how many goroutines work")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	if *address != "" {
		// A scraper finds contention without the SDK, too.
		runtime.SetMutexProfileFraction(10)
		runtime.SetBlockProfileRate(10_000)
		listening, err := servePprof(*address)
		if err != nil {
			return err
		}
		fmt.Printf("serving http://%s/debug/pprof/\n", listening)
	}
	if *server != "" {
		config := afterglow.Config{
			Server: *server, Service: *service, Period: *period,
			Labels: map[string]string{"version": "1.0", "language": "go"},
		}
		for name := range strings.SplitSeq(*types, ",") {
			config.Types = append(config.Types, afterglow.Type(name))
		}
		profiler, err := afterglow.Start(config)
		if err != nil {
			return err
		}
		defer func() {
			profiler.Stop()
			fmt.Printf("%+v\n", profiler.Stats())
		}()
		fmt.Printf("sending to %s as %s\n", *server, *service)
	}

	began, cpu := time.Now(), cpuTime()
	held := hold(32)
	rounds := work(ctx, *workers)
	used := cpuTime() - cpu
	runtime.KeepAlive(held)
	fmt.Printf("%d rounds in %.1f s, %.2f s of CPU time, %.3f ms a round\n", rounds, time.Since(began).Seconds(),
		used.Seconds(), used.Seconds()*1000/float64(max(rounds, 1)))
	return nil
}

// servePprof serves in the background and returns its address.
func servePprof(address string) (net.Addr, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return listener.Addr(), nil
}

// work keeps the workers busy until the context ends, and returns how many rounds they made.
func work(ctx context.Context, workers int) int64 {
	var (
		rounds  atomic.Int64
		sink    atomic.Uint64
		shared  sync.Mutex
		working sync.WaitGroup
	)
	for range workers {
		working.Go(func() {
			for ctx.Err() == nil {
				// Rounds of equal length could keep step with the kernel's ticks, and samples would all fall into one part.
				unit := 500_000 + rand.Uint64N(1_000_000)
				runtimepprof.Do(ctx, runtimepprof.Labels("share", "3/4"), func(context.Context) { sink.Add(threeQuarters(unit)) })
				runtimepprof.Do(ctx, runtimepprof.Labels("share", "1/4"), func(context.Context) { sink.Add(oneQuarter(unit)) })
				if rounds.Add(1)%8 == 0 {
					contend(&shared)
				}
			}
		})
	}
	working.Wait()
	return rounds.Load()
}

//go:noinline
func threeQuarters(unit uint64) uint64 { return spin(3 * unit) }

//go:noinline
func oneQuarter(unit uint64) uint64 { return spin(unit) }

// spin is not inlined: a copy in each caller may be compiled to loops of different speed, and the shares would be others.
//
//go:noinline
func spin(n uint64) (hash uint64) {
	for i := range n {
		hash = (hash ^ i) * 0x0100_0000_01b3
	}
	return hash
}

// hold allocates so many MiB.
//
//go:noinline
func hold(mebibytes int) [][]byte {
	held := make([][]byte, mebibytes)
	for i := range held {
		held[i] = make([]byte, 1<<20)
	}
	return held
}

// contend lets two goroutines wait for one mutex.
//
//go:noinline
func contend(mutex *sync.Mutex) {
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			mutex.Lock()
			defer mutex.Unlock()
			time.Sleep(100 * time.Microsecond)
		})
	}
	both.Wait()
}

// cpuTime returns the CPU time of the process so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
