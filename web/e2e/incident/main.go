// Command checkout is the service of the incident that the tests, and docs/tour.md, walk through: it prices orders, checks their coupons
// and writes receipts, for as long as it is told, and records its own CPU and heap profiles meanwhile. Version 1.5 (build tag v15) has a
// regression that a profile shows at once: see the package coupon.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"example.com/checkout/coupon"
	"example.com/checkout/pricing"
	"example.com/checkout/receipt"
)

func main() {
	cpu := flag.String("cpu", "cpu.pb.gz", "where the CPU profile goes")
	heap := flag.String("heap", "heap.pb.gz", "where the heap profile goes")
	lasting := flag.Duration("for", time.Second, "how long to serve")
	flag.Parse()

	file, err := os.Create(*cpu)
	check(err)
	check(pprof.StartCPUProfile(file))
	// A service has data of its own, which keep the collector from running at every turn.
	catalogue := make([]byte, 256<<20)
	defer runtime.KeepAlive(catalogue)

	// So many customers come whatever the version: one that needs longer for each uses more CPU.
	const rhythm = 4 * time.Millisecond
	start := time.Now()
	for at := time.Duration(0); at < *lasting; at += rhythm {
		time.Sleep(time.Until(start.Add(at)))
		pprof.Do(context.Background(), pprof.Labels("endpoint", "/cart"), func(context.Context) { each(cart) })
		pprof.Do(context.Background(), pprof.Labels("endpoint", "/order"), func(context.Context) { each(checkout) })
	}
	pprof.StopCPUProfile()
	check(file.Close())

	file, err = os.Create(*heap)
	check(err)
	check(pprof.WriteHeapProfile(file))
	check(file.Close())
}

// writers are used again: a new one would cost more than what it writes.
var writers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// order is what every customer of the test buys.
var order = []byte(`{"id":"4711","items":[{"name":"kettle","cents":2450,"count":1},{"name":"tea","cents":399,"count":12},
{"name":"cup","cents":899,"count":6},{"name":"honey","cents":650,"count":2}],"coupons":["SPRING-2026-10","FRIEND-77","SUMMER-2025-20","WINTER-2027-5","FRIEND-1204","X"]}`)

// each serves the customers of one tick.
func each(handle func([]byte)) {
	for range 40 {
		handle(order)
	}
}

func cart(body []byte) {
	price(body)
}

func checkout(body []byte) {
	o := price(body)
	for _, code := range o.Coupons {
		if coupon.Valid(code) {
			o.Discount += 100
		}
	}
	var out bytes.Buffer
	zip := writers.Get().(*gzip.Writer)
	zip.Reset(&out)
	check(receipt.Write(zip, o))
	check(zip.Close())
	writers.Put(zip)
}

func price(body []byte) *pricing.Order {
	var o pricing.Order
	check(json.Unmarshal(body, &o))
	o.Price()
	return &o
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
