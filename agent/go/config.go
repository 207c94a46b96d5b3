package afterglow

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Type is a profile type.
type Type string

// The profile types of the Go runtime.
const (
	// CPU is where CPU time goes, over a window.
	CPU Type = "cpu"
	// Heap is what is allocated and what of it is in use. It has the samples of Allocs, too.
	Heap Type = "heap"
	// Allocs is Heap, meant to be looked at by what was allocated.
	Allocs Type = "allocs"
	// Goroutine is the stacks of all goroutines. Taking it stops the program for a moment that grows with their number.
	Goroutine Type = "goroutine"
	// Mutex is where goroutines wait for contended mutexes. Asking for it sets a sampling rate if the program has not.
	Mutex Type = "mutex"
	// Block is where goroutines wait at all. Asking for it sets a sampling rate.
	Block Type = "block"
	// ThreadCreate is what led to new threads of the operating system.
	ThreadCreate Type = "threadcreate"
)

const (
	// defaultPeriod gives two profiles of each type a minute.
	defaultPeriod = 30 * time.Second
	// minPeriod bounds what profiling costs: each window ends with work.
	minPeriod = time.Second
	// defaultQueueBytes holds some hundred profiles of the usual size.
	defaultQueueBytes = 16 << 20
	// defaultMutexFraction reports one of so many contentions, as is usual for a rate that stays on.
	defaultMutexFraction = 100
	// defaultBlockRate samples one blocking event for each 10 µs spent blocked; finer rates cost noticeably.
	defaultBlockRate = 10_000
)

// Config says what to profile and where to send it. Server and Service are required.
type Config struct {
	// Server is an ingester: http://HOST:PORT, or https://HOST:PORT verified against the system's roots, or by TLS. Without a scheme it
	// is http.
	Server string
	// Service is the label by which the program is found.
	Service string
	// Labels are on every profile, such as version, dc or pod.
	Labels map[string]string
	// Types are the profile types; nil means CPU, Heap and Goroutine.
	Types []Type
	// Period is the length of a window, and how often the other types are taken; 0 means 30 s. The first window is 5 s at most.
	Period time.Duration
	// Tenant is who the profiles belong to, where the server has tenants.
	Tenant string
	// Token is a bearer token. It goes over https://, or to this machine, unless TokenInClear.
	Token string
	// TokenInClear sends the token over http:// to other machines, too, where whoever is on the way can read it.
	TokenInClear bool
	// TLS is how an https:// server is verified (RootCAs) and what is presented to it (Certificates, or GetClientCertificate for one that
	// is renewed); nil means the system's roots, and nothing.
	TLS *tls.Config
	// MutexFraction is for runtime.SetMutexProfileFraction, used only if Types has Mutex. 0 means: keep the program's own, else 100.
	MutexFraction int
	// BlockRate is for runtime.SetBlockProfileRate, in nanoseconds, used only if Types has Block; 0 means 10,000.
	BlockRate int
	// QueueBytes is how much memory profiles may take that wait for their acknowledgement; 0 means 16 MiB.
	QueueBytes int
	// Logger hears of profiles that were refused or dropped; nil means slog.Default().
	Logger *slog.Logger
	// DialOptions come after the profiler's own.
	DialOptions []grpc.DialOption
}

// withDefaults checks the configuration and returns it complete.
func (c Config) withDefaults() (Config, error) {
	var problems []error
	if c.Service == "" {
		problems = append(problems, errors.New("Service is empty"))
	}
	if target, transport, err := dialTarget(c.Server, c.TLS); err != nil {
		problems = append(problems, err)
	} else if transport.Info().SecurityProtocol != "tls" {
		if c.Token != "" && !c.TokenInClear && !isThisMachine(target) {
			problems = append(problems, fmt.Errorf(
				"the token would go to %s in the clear, where whoever is on the way can read it: use https://, or set TokenInClear", c.Server))
		}
		if c.TLS != nil {
			problems = append(problems, errors.New("TLS is set, but Server does not begin with https://"))
		}
	}
	if c.Types == nil {
		c.Types = []Type{CPU, Heap, Goroutine}
	}
	if len(c.Types) == 0 {
		problems = append(problems, errors.New("Types is empty: there is nothing to profile"))
	}
	for _, t := range c.Types {
		switch t {
		case CPU, Heap, Allocs, Goroutine, Mutex, Block, ThreadCreate:
		default:
			problems = append(problems, fmt.Errorf("type %q is not one that the Go runtime has", t))
		}
	}
	if c.Period == 0 {
		c.Period = defaultPeriod
	}
	if c.Period < minPeriod {
		problems = append(problems, fmt.Errorf("Period %v is shorter than %v", c.Period, minPeriod))
	}
	if c.MutexFraction < 0 || c.BlockRate < 0 || c.QueueBytes < 0 {
		problems = append(problems, errors.New("MutexFraction, BlockRate and QueueBytes cannot be negative"))
	}
	if c.BlockRate == 0 {
		c.BlockRate = defaultBlockRate
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = defaultQueueBytes
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	// The caller may go on to use its map.
	labels := map[string]string{}
	maps.Copy(labels, c.Labels)
	labels["service"] = c.Service
	c.Labels = labels
	if err := errors.Join(problems...); err != nil {
		return Config{}, fmt.Errorf("afterglow: %w", err)
	}
	return c, nil
}

// isThisMachine says whether what is sent to what grpc dials stays on this machine.
func isThisMachine(target string) bool {
	host, _, err := net.SplitHostPort(strings.TrimPrefix(target, "dns:///"))
	ip := net.ParseIP(host)
	return err == nil && (strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback()))
}

// dialTarget turns the server's URL into what grpc dials.
func dialTarget(server string, config *tls.Config) (string, credentials.TransportCredentials, error) {
	if server != "" && !strings.Contains(server, "://") {
		server = "http://" + server
	}
	address, err := url.Parse(server)
	if err != nil || address.Host == "" || (address.Path != "" && address.Path != "/") {
		return "", nil, fmt.Errorf("Server %q is not http://HOST:PORT or https://HOST:PORT", server)
	}
	port := address.Port()
	switch address.Scheme {
	case "http":
		if port == "" {
			port = "80"
		}
		return "dns:///" + net.JoinHostPort(address.Hostname(), port), insecure.NewCredentials(), nil
	case "https":
		if port == "" {
			port = "443"
		}
		return "dns:///" + net.JoinHostPort(address.Hostname(), port), credentials.NewTLS(config), nil
	default:
		return "", nil, fmt.Errorf("Server %q: the scheme is neither http nor https", server)
	}
}
