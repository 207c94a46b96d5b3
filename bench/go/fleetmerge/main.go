// Command fleetmerge measures google/pprof's profile.Parse and profile.Merge on the many files of a folder.
//
// It parses them in the order of their names and merges them, 128 with what came of those before, as `pprof -proto` does
// (internal/driver/fetch.go, chunkedGrab): all at once, they would have to be in memory together. It prints one line of JSON: how many
// profiles, the CPU seconds of the whole process (the garbage collector's threads with it), the most memory that it held resident in
// bytes, and the samples of the merge. bench/src/bin/merges.rs runs it beside our own.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"path/filepath"
	"sort"
	"syscall"
	"time"

	"github.com/google/pprof/profile"
)

const chunk = 128

func main() {
	log.SetFlags(0)
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: fleetmerge FOLDER")
	}
	paths, err := filepath.Glob(filepath.Join(flag.Arg(0), "*.pb.gz"))
	if err != nil {
		log.Fatal(err)
	}
	sort.Strings(paths)
	var merged *profile.Profile
	for start := 0; start < len(paths); start += chunk {
		var profiles []*profile.Profile
		if merged != nil {
			profiles = append(profiles, merged)
		}
		for _, path := range paths[start:min(start+chunk, len(paths))] {
			profiles = append(profiles, parse(path))
		}
		if merged, err = profile.Merge(profiles); err != nil {
			log.Fatal(err)
		}
	}
	if merged == nil {
		log.Fatal("no *.pb.gz there")
	}
	if err := merged.Write(io.Discard); err != nil {
		log.Fatal(err)
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"profiles": len(paths), "cpu_seconds": cpu.Seconds(), "peak_rss_mib": usage.Maxrss >> 10, "samples": len(merged.Sample),
	}); err != nil {
		log.Fatal(err)
	}
}

func parse(path string) *profile.Profile {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	p, err := profile.Parse(file)
	if err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	return p
}
