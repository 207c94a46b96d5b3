// A program with work of known shares, which profiles itself: `slower OUT PROFILES REQUESTS FACTOR` writes PROFILES CPU profiles of
// REQUESTS each to OUT/NN.pb.gz, in all of which the function hash does FACTOR times its work.
package main

import (
	"fmt"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
)

const samplesPerSecond = 500

var sink uint64

// Each function works by itself, so that its time is its own.

//go:noinline
func parse(rounds int) {
	state := sink | 1
	for range rounds {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
	}
	sink = state
}

//go:noinline
func encode(rounds int) {
	state := sink | 3
	for range rounds {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
	}
	sink = state
}

//go:noinline
func hash(rounds int) {
	state := sink | 5
	for range rounds {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
	}
	sink = state
}

// request does what one request of this program costs: work that differs from one to the next, and a share of it in each function.
func request(factor float64) {
	rounds := 20_000 + rand.Intn(20_000)
	parse(35 * rounds / 100)
	encode(25 * rounds / 100)
	hash(int(factor * float64(40*rounds/100)))
}

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: slower OUT PROFILES REQUESTS FACTOR")
	}
	profiles, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	requests, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	factor, err := strconv.ParseFloat(os.Args[4], 64)
	if err != nil {
		log.Fatal(err)
	}
	for n := range profiles {
		file, err := os.Create(filepath.Join(os.Args[1], fmt.Sprintf("%02d.pb.gz", n)))
		if err != nil {
			log.Fatal(err)
		}
		// More samples than the 100 a second that StartCPUProfile asks for: it complains on standard error, and leaves the rate as it is.
		runtime.SetCPUProfileRate(samplesPerSecond)
		if err := pprof.StartCPUProfile(file); err != nil {
			log.Fatal(err)
		}
		for range requests {
			request(factor)
		}
		pprof.StopCPUProfile()
		if err := file.Close(); err != nil {
			log.Fatal(err)
		}
	}
}
