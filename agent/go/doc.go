// Package afterglow profiles the program it is part of and sends the profiles to Afterglow, for as long as the program runs.
//
//	profiler, err := afterglow.Start(afterglow.Config{
//		Server:  "http://127.0.0.1:4100",
//		Service: "checkout",
//		Labels:  map[string]string{"version": "1.3"},
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer profiler.Stop()
//
// One goroutine records, by runtime/pprof: the CPU for a window, then a snapshot of each other type. Another pushes over one gRPC
// stream. What waits for its acknowledgement is held in memory up to a limit, the oldest is dropped first; the program never waits for
// either. A profile keeps its identity over all tries, so it counts once however often the connection breaks.
//
// Labels set by pprof.Do are part of the CPU and goroutine profiles, as ever.
package afterglow

//go:generate go run -C generate .
