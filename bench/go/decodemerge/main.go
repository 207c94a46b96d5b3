// Command decodemerge measures google/pprof's profile.ParseData and profile.Merge on real profiles.
//
// It prints a line for each series of a folder: its name, the CPU nanoseconds to parse all its files, and those to merge them,
// separated by tabs. A series is all *.pb.gz files whose names are equal up to the last dash. CPU time is that of the whole process,
// the garbage collector's threads with it; the best of several rounds counts. bench/decode-merge.sh runs it beside our own.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"
)

func main() {
	log.SetFlags(0)
	rounds := flag.Int("rounds", 15, "how often each series is measured")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: decodemerge [-rounds N] FOLDER")
	}
	paths, err := filepath.Glob(filepath.Join(flag.Arg(0), "*.pb.gz"))
	if err != nil {
		log.Fatal(err)
	}
	sort.Strings(paths)
	series := map[string][][]byte{}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".pb.gz")
		if dash := strings.LastIndex(name, "-"); dash >= 0 {
			name = name[:dash]
		}
		body, err := os.ReadFile(path)
		if err != nil {
			log.Fatal(err)
		}
		series[name] = append(series[name], body)
	}
	for name, bodies := range series {
		parse, merge, err := measure(bodies, *rounds)
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		fmt.Printf("%s\t%d\t%d\n", name, parse.Nanoseconds(), merge.Nanoseconds())
	}
}

// measure returns the least CPU time of parsing all bodies, and of merging them.
func measure(bodies [][]byte, rounds int) (parse, merge time.Duration, err error) {
	for round := range rounds {
		// What the rounds before left behind is not this one's to collect.
		runtime.GC()
		profiles := make([]*profile.Profile, 0, len(bodies))
		start := cpuTime()
		for _, body := range bodies {
			p, err := profile.ParseData(body)
			if err != nil {
				return 0, 0, err
			}
			profiles = append(profiles, p)
		}
		parsed := cpuTime()
		if _, err := profile.Merge(profiles); err != nil {
			return 0, 0, err
		}
		merged := cpuTime()
		if round == 0 || parsed-start < parse {
			parse = parsed - start
		}
		if round == 0 || merged-parsed < merge {
			merge = merged - parsed
		}
	}
	return parse, merge, nil
}

// cpuTime returns the user and system time of the process.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
