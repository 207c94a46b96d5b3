package afterglow

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterglow-profiler/afterglow/agent/go/afterglowv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Goal: a running profiler sends every type with the program's labels, and what pprof.Do says is in the CPU profile.
func TestARunningProfilerSendsAllTypes(t *testing.T) {
	types := []Type{CPU, Heap, Allocs, Goroutine, Mutex, Block, ThreadCreate}
	f := newFake(t, func(int, *afterglowv1.Profile) act { return ack })
	config := f.config()
	config.Labels = map[string]string{"version": "1.3"}
	config.Types = types
	config.Period = time.Second
	config.Tenant, config.Token = "team-a", "s3cret"
	profiler, err := start(config, quick())
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() {
		pprof.Do(context.Background(), pprof.Labels("endpoint", "/pay-the-bill"), func(context.Context) { spin(stop) })
	})
	seen := func() map[string]int {
		counts := map[string]int{}
		for _, stored := range f.stored {
			counts[stored.Type]++
		}
		return counts
	}
	f.waitUntil(func() bool { return seen()["threadcreate"] >= 2 })
	close(stop)
	working.Wait()
	profiler.Stop()

	if fraction := runtime.SetMutexProfileFraction(-1); fraction != 0 {
		t.Errorf("the mutex fraction stays at %d", fraction)
	}
	if got := f.metadata.Get("x-scope-orgid"); len(got) != 1 || got[0] != "team-a" {
		t.Errorf("tenant %q", got)
	}
	if got := f.metadata.Get("authorization"); len(got) != 1 || got[0] != "Bearer s3cret" {
		t.Errorf("authorization %q", got)
	}
	labelled := false
	for _, stored := range f.stored {
		if stored.Labels["service"] != "tested" || stored.Labels["version"] != "1.3" {
			t.Errorf("labels %v", stored.Labels)
		}
		raw := inflate(t, stored.Pprof)
		labelled = labelled || (stored.Type == "cpu" && bytes.Contains(raw, []byte("/pay-the-bill")))
	}
	if !labelled {
		t.Error("no CPU profile has the label of pprof.Do")
	}
	for _, wanted := range types {
		if seen()[string(wanted)] < 2 {
			t.Errorf("%d of type %s", seen()[string(wanted)], wanted)
		}
	}
	if stats := profiler.Stats(); stats.Queued != 0 || stats.Acked != stats.Accepted {
		t.Errorf("after Stop everything has its outcome: %+v", stats)
	}
}

// spin works until it is told to stop.
func spin(stop <-chan struct{}) (hash uint64) {
	for {
		select {
		case <-stop:
			return hash
		default:
			for i := range uint64(10_000) {
				hash = (hash ^ i) * 0x0100_0000_01b3
			}
		}
	}
}

func inflate(t *testing.T, pprof []byte) []byte {
	t.Helper()
	reader, err := gzip.NewReader(bytes.NewReader(pprof))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Goal: while somebody else profiles the CPU, the rest goes on.
func TestAnotherCPUProfileIsLeftAlone(t *testing.T) {
	var other bytes.Buffer
	if err := pprof.StartCPUProfile(&other); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, func(int, *afterglowv1.Profile) act { return ack })
	config := f.config()
	config.Period = time.Second
	profiler, err := start(config, quick())
	if err != nil {
		t.Fatal(err)
	}
	f.waitUntil(func() bool { return len(f.stored) >= 2 })
	profiler.Stop()
	pprof.StopCPUProfile()
	if other.Len() == 0 {
		t.Error("the other profile is empty")
	}
	for _, stored := range f.stored {
		if stored.Type == "cpu" {
			t.Error("there was no CPU profile to be had")
		}
	}
}

func TestAConfigurationIsRefusedWithAllThatIsWrong(t *testing.T) {
	_, err := Start(Config{Server: "grpc://x", Types: []Type{"wall"}, Period: time.Millisecond, QueueBytes: -1})
	if err == nil {
		t.Fatal("it started")
	}
	for _, said := range []string{"Service is empty", `"grpc://x"`, `"wall"`, "1ms is shorter", "cannot be negative"} {
		if !strings.Contains(err.Error(), said) {
			t.Errorf("%q is missing in %q", said, err)
		}
	}
	if _, err := Start(Config{Server: "http://x:1", Service: "s", Types: []Type{}}); err == nil {
		t.Error("it started with nothing to profile")
	}
}

func TestServersAreDialledByTheirURL(t *testing.T) {
	for server, want := range map[string]string{
		"http://host:4100":    "dns:///host:4100",
		"host:4100":           "dns:///host:4100",
		"https://host/":       "dns:///host:443",
		"http://[::1]:4100":   "dns:///[::1]:4100",
		"http://profiles.lan": "dns:///profiles.lan:80",
	} {
		if got, _, err := dialTarget(server, nil); err != nil || got != want {
			t.Errorf("%s: %s, %v", server, got, err)
		}
	}
	for _, server := range []string{"", "http://", "s3://bucket", "http://host:1/path", "http://bad host"} {
		if got, _, err := dialTarget(server, nil); err == nil {
			t.Errorf("%q was taken as %s", server, got)
		}
	}
}

func TestATokenGoesInTheClearToThisMachineAloneUnlessThatIsMeant(t *testing.T) {
	for _, server := range []string{"localhost:4100", "http://127.0.0.2:4100", "http://[::1]:4100", "https://profiles.example.com"} {
		if _, err := (Config{Server: server, Service: "s", Token: "agw_1"}).withDefaults(); err != nil {
			t.Errorf("%s: %v", server, err)
		}
	}
	for _, server := range []string{"ingester:4100", "http://10.0.0.1:4100", "http://localhost.example.com"} {
		_, err := (Config{Server: server, Service: "s", Token: "agw_1"}).withDefaults()
		if err == nil || !strings.Contains(err.Error(), "TokenInClear") || strings.Contains(err.Error(), "agw_1") {
			t.Errorf("%s: %v", server, err)
		}
		if _, err := (Config{Server: server, Service: "s", Token: "agw_1", TokenInClear: true}).withDefaults(); err != nil {
			t.Errorf("%s: %v", server, err)
		}
		if _, err := (Config{Server: server, Service: "s"}).withDefaults(); err != nil {
			t.Errorf("%s: %v", server, err)
		}
	}
	if _, err := (Config{Server: "http://localhost", Service: "s", TLS: &tls.Config{}}).withDefaults(); err == nil {
		t.Error("TLS without https was taken")
	}
}

func TestAServerIsVerifiedByTLSAndGetsACertificate(t *testing.T) {
	pair, roots := certificate(t)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	fake := &fake{script: func(int, *afterglowv1.Profile) act { return ack }, stored: map[string]*afterglowv1.Profile{}}
	fake.changed = sync.NewCond(&fake.mu)
	afterglowv1.RegisterIngestServiceServer(server, fake)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	profiler, err := Start(Config{
		Server: "https://" + listener.Addr().String(), Service: "s", Types: []Type{Goroutine}, Token: "agw_1",
		TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	})
	if err != nil {
		t.Fatal(err)
	}
	profiler.Stop()
	if stats := profiler.Stats(); stats.Acked == 0 {
		t.Errorf("nothing was acknowledged: %+v", stats)
	}
}

// certificate makes one for loopback, for servers and clients, that is its own authority.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func TestIDsAreULIDs(t *testing.T) {
	// The example of github.com/ulid/spec.
	if got := newID(time.UnixMilli(1469922850259)); !strings.HasPrefix(got, "01ARZ3NDEK") {
		t.Errorf("%s has another time", got)
	}
	if got := encodeID([16]byte{15: 33}); got != "00000000000000000000000011" {
		t.Error(got)
	}
	if got := encodeID([16]byte(bytes.Repeat([]byte{0xff}, 16))); got != "7ZZZZZZZZZZZZZZZZZZZZZZZZZ" {
		t.Error(got)
	}
	form, seen := regexp.MustCompile("^[0-7][0-9A-HJKMNP-TV-Z]{25}$"), map[string]bool{}
	for range 1000 {
		id := newID(time.Now())
		if !form.MatchString(id) || seen[id] {
			t.Errorf("%s", id)
		}
		seen[id] = true
	}
}

func TestBackoffStaysUnderItsCeilingAndOverWhatTheServerAsked(t *testing.T) {
	b := backoff{base: 100 * time.Millisecond, max: 2 * time.Second}
	for attempts, ceiling := range map[int]time.Duration{0: b.base, 1: 2 * b.base, 4: 16 * b.base, 5: b.max, 63: b.max, 1000: b.max} {
		for range 100 {
			if wait := b.wait(attempts, 0); wait < 0 || wait > ceiling {
				t.Errorf("%v after %d failures", wait, attempts)
			}
			if wait := b.wait(attempts, time.Minute); wait != time.Minute {
				t.Errorf("%v where the server asked for a minute", wait)
			}
		}
	}
}
