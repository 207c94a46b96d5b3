// Asks as Grafana's data source does: by the client that Pyroscope publishes, over Connect.
//
// It reads a question a line as JSON from standard input and writes an answer a line as JSON to standard output. Message and answer are
// protobuf's JSON, whatever goes over the wire:
//
//	{"url":URL,"headers":{...},"json":BOOL,"gzip":BOOL,"method":"SelectSeries","request":{...}}
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

type question struct {
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	// Whether messages go as JSON rather than protobuf.
	JSON bool `json:"json"`
	// Whether the question goes compressed.
	Gzip    bool            `json:"gzip"`
	Method  string          `json:"method"`
	Request json.RawMessage `json:"request"`
}

type answer struct {
	Response json.RawMessage `json:"response,omitempty"`
	// The code and the text of a refusal.
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			log.Fatalf("%s: %v", lines.Bytes(), err)
		}
		var reply answer
		response, err := asked.ask()
		if refused := new(connect.Error); errors.As(err, &refused) {
			reply = answer{Code: refused.Code().String(), Error: refused.Message()}
		} else if err != nil {
			log.Fatal(err)
		} else {
			reply = answer{Response: response}
		}
		if err := answers.Encode(reply); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}

func (q *question) ask() (json.RawMessage, error) {
	var options []connect.ClientOption
	if q.JSON {
		options = append(options, connect.WithProtoJSON())
	}
	if q.Gzip {
		options = append(options, connect.WithSendGzip())
	}
	client := querierv1connect.NewQuerierServiceClient(http.DefaultClient, q.URL, options...)
	switch q.Method {
	case "ProfileTypes":
		return call(q, client.ProfileTypes)
	case "LabelNames":
		return call(q, client.LabelNames)
	case "LabelValues":
		return call(q, client.LabelValues)
	case "Series":
		return call(q, client.Series)
	case "SelectSeries":
		return call(q, client.SelectSeries)
	case "SelectMergeStacktraces":
		return call(q, client.SelectMergeStacktraces)
	case "SelectMergeSpanProfile":
		return call(q, client.SelectMergeSpanProfile)
	case "SelectMergeProfile":
		return call(q, client.SelectMergeProfile)
	default:
		return nil, fmt.Errorf("there is no method %q", q.Method)
	}
}

// message is a pointer to a T that is a message of protobuf.
type message[T any] interface {
	*T
	proto.Message
}

func call[Q, A any, PQ message[Q], PA message[A]](
	q *question,
	method func(context.Context, *connect.Request[Q]) (*connect.Response[A], error),
) (json.RawMessage, error) {
	asked := PQ(new(Q))
	if err := protojson.Unmarshal(q.Request, asked); err != nil {
		return nil, err
	}
	request := connect.NewRequest((*Q)(asked))
	for name, value := range q.Headers {
		request.Header().Set(name, value)
	}
	response, err := method(context.Background(), request)
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(PA(response.Msg))
}
