// Answers what google/pprof makes of profiles, so that Afterglow's answers can be compared with the real thing.
//
// It reads a request a line as JSON from standard input and writes an answer a line as JSON to standard output:
//
//	{"op":"merge","files":[...],"ours":FILE}  differences between profile.Merge of the files and our merge of them
//	{"op":"proto","files":[...],"ours":FILE}  the same with `pprof -proto` over the files
//	{"op":"filter","files":[...],"options":[...],"ours":FILE}  the same with `pprof -proto` and options such as -focus or -base over the files, and
//	    its result merged once more, which brings equal samples together and leaves unused tables out
//	{"op":"write","files":[...],"output":FILE}  writes profile.Merge of the files
//	{"op":"dot","files":[FILE],"sample_type":INDEX}  the text of `pprof -dot`
//	{"op":"top","files":[FILE],"sample_type":INDEX,"unit":UNIT}  the rows of `pprof -top`
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/google/pprof/profile"
)

type request struct {
	Op         string   `json:"op"`
	Files      []string `json:"files"`
	Ours       string   `json:"ours"`
	Options    []string `json:"options"`
	Output     string   `json:"output"`
	SampleType int      `json:"sample_type"`
	Unit       string   `json:"unit"`
}

type answer struct {
	// Why there is no answer.
	Error string `json:"error,omitempty"`
	// What stands in only one of two merged profiles.
	Differences []string `json:"differences,omitempty"`
	// How many samples the merge of google/pprof has.
	Samples int `json:"samples"`
	// The text of a report.
	Text string `json:"text,omitempty"`
	// The rows of a table.
	Rows []row `json:"rows,omitempty"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var ask request
		if err := json.Unmarshal(lines.Bytes(), &ask); err != nil {
			log.Fatalf("%s: %v", lines.Bytes(), err)
		}
		reply, err := ask.answer()
		if err != nil {
			reply = answer{Error: err.Error()}
		}
		if err := answers.Encode(reply); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}

func (r *request) answer() (answer, error) {
	switch r.Op {
	case "merge":
		theirs, err := merge(r.Files)
		if err != nil {
			return answer{}, err
		}
		return compare(theirs, r.Ours)
	case "proto":
		theirs, err := proto(r.Files)
		if err != nil {
			return answer{}, err
		}
		return compare(theirs, r.Ours)
	case "filter":
		theirs, err := proto(r.Files, r.Options...)
		if err != nil {
			return answer{}, err
		}
		theirs, err = profile.Merge([]*profile.Profile{theirs})
		if err != nil {
			return answer{}, err
		}
		return compare(theirs, r.Ours)
	case "write":
		theirs, err := merge(r.Files)
		if err != nil {
			return answer{}, err
		}
		return answer{Samples: len(theirs.Sample)}, write(theirs, r.Output)
	case "dot":
		text, err := report(r.Files, "-dot", fmt.Sprint("-sample_index=", r.SampleType),
			"-nodecount=80", "-nodefraction=0.005", "-edgefraction=0.001")
		return answer{Text: string(text)}, err
	case "top":
		rows, err := top(r.Files, r.SampleType, r.Unit)
		return answer{Rows: rows}, err
	default:
		return answer{}, fmt.Errorf("unknown op %q", r.Op)
	}
}

func parse(name string) (*profile.Profile, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	parsed, err := profile.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return parsed, nil
}

func merge(files []string) (*profile.Profile, error) {
	var sources []*profile.Profile
	for _, file := range files {
		parsed, err := parse(file)
		if err != nil {
			return nil, err
		}
		sources = append(sources, parsed)
	}
	return profile.Merge(sources)
}

func write(p *profile.Profile, name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(p.Write(file), file.Close())
}

func compare(theirs *profile.Profile, ours string) (answer, error) {
	parsed, err := parse(ours)
	if err != nil {
		return answer{}, fmt.Errorf("our merge is not readable: %w", err)
	}
	if err := errors.Join(theirs.CheckValid(), parsed.CheckValid()); err != nil {
		return answer{}, err
	}
	return answer{Differences: difference(dump(theirs), dump(parsed)), Samples: len(theirs.Sample)}, nil
}
