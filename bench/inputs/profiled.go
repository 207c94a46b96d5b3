// Serves /debug/pprof on the Unix socket that AFTERGLOW_INPUTS_SOCKET names, with mutex and block profiles on.
//
// build.sh adds this file to the main package of every program that is recorded, so that all are asked in one way and none needs a
// port for it. Nothing else in them is changed.
package main

import (
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
)

func init() {
	socket := os.Getenv("AFTERGLOW_INPUTS_SOCKET")
	if socket == "" {
		return
	}
	// One in so many contended mutexes, and an event for so many nanoseconds blocked: what servers in production afford.
	runtime.SetMutexProfileFraction(10)
	runtime.SetBlockProfileRate(10_000)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatalf("profiles of this program cannot be served: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	go func() { log.Print(http.Serve(listener, mux)) }()
}
