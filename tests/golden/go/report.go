package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/pprof/driver"
	"github.com/google/pprof/profile"
)

// row is a line of `pprof -top`.
type row struct {
	Name string `json:"name"`
	Flat int64  `json:"flat"`
	Cum  int64  `json:"cum"`
}

var (
	rowPattern    = regexp.MustCompile(`^ *(\S+) +\S+% +\S+% +(\S+) +\S+%  (.*)$`)
	numberPattern = regexp.MustCompile(`^-?[0-9]+`)
)

// top runs `pprof -top` without any trimming; values come in the unit given, which should be the profile's own.
func top(files []string, sampleType int, unit string) ([]row, error) {
	text, err := report(files, "-top", fmt.Sprint("-sample_index=", sampleType), "-unit="+unit)
	if err != nil {
		return nil, err
	}
	_, table, found := strings.Cut(string(text), "cum%\n")
	if !found {
		return nil, fmt.Errorf("no table in %q", text)
	}
	var rows []row
	for _, line := range strings.Split(strings.TrimSuffix(table, "\n"), "\n") {
		if line == "" {
			continue
		}
		match := rowPattern.FindStringSubmatch(line)
		if match == nil {
			return nil, fmt.Errorf("no row: %q", line)
		}
		name := strings.TrimSuffix(strings.TrimSuffix(match[3], " (inline)"), " (partial-inline)")
		flat, err := number(match[1])
		if err != nil {
			return nil, err
		}
		cum, err := number(match[2])
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{name, flat, cum})
	}
	return rows, nil
}

// number reads a value that pprof printed with its unit. A fraction would mean that it was not in the profile's own unit.
func number(text string) (int64, error) {
	digits := numberPattern.FindString(text)
	if strings.HasPrefix(text[len(digits):], ".") {
		return 0, fmt.Errorf("%q is no whole number", text)
	}
	return strconv.ParseInt(digits, 10, 64)
}

// proto runs `pprof -proto`. Where no file has mappings, pprof makes one up, which is taken out again.
func proto(files []string, options ...string) (*profile.Profile, error) {
	encoded, err := report(files, append([]string{"-proto"}, options...)...)
	if err != nil {
		return nil, err
	}
	result, err := profile.ParseData(encoded)
	if err != nil {
		return nil, err
	}
	if len(result.Mapping) == 1 && *result.Mapping[0] == (profile.Mapping{ID: result.Mapping[0].ID}) {
		result.Mapping = nil
		for _, location := range result.Location {
			location.Mapping = nil
		}
	}
	return result, nil
}

// report runs pprof as its command line does, in this process: profiles as they are, neither symbolized nor trimmed.
func report(files []string, options ...string) ([]byte, error) {
	untouched := []string{
		"-symbolize=none", "-output=captured", "-nodecount=0", "-nodefraction=0", "-edgefraction=0",
		"-sample_index=", "-unit=minimum",
		// pprof remembers the options of the call before.
		"-focus=", "-ignore=", "-show=", "-hide=", "-show_from=", "-tagfocus=", "-tagignore=", "-normalize=false",
	}
	console := &silence{}
	captured := &capture{}
	err := driver.PProf(&driver.Options{
		Writer:  captured,
		Flagset: &flags{FlagSet: flag.NewFlagSet("pprof", flag.ContinueOnError), args: append(append(untouched, options...), files...)},
		UI:      console,
	})
	if err != nil {
		return nil, fmt.Errorf("%w %s", err, console.errors.String())
	}
	return captured.Bytes(), nil
}

// capture keeps what pprof would write to a file.
type capture struct{ bytes.Buffer }

func (c *capture) Open(string) (io.WriteCloser, error) { return c, nil }
func (c *capture) Close() error                        { return nil }

// flags gives pprof its command line.
type flags struct {
	*flag.FlagSet
	args []string
}

func (f *flags) StringList(name, def, usage string) *[]*string {
	return &[]*string{f.String(name, def, usage)}
}
func (f *flags) ExtraUsage() string   { return "" }
func (f *flags) AddExtraUsage(string) {}
func (f *flags) Parse(usage func()) []string {
	f.Usage = usage
	if err := f.FlagSet.Parse(f.args); err != nil {
		return nil
	}
	return f.Args()
}

// silence is a user who reads nothing but errors.
type silence struct{ errors strings.Builder }

func (s *silence) ReadLine(string) (string, error)     { return "", io.EOF }
func (s *silence) Print(...any)                        {}
func (s *silence) PrintErr(args ...any)                { fmt.Fprintln(&s.errors, args...) }
func (s *silence) IsTerminal() bool                    { return false }
func (s *silence) WantBrowser() bool                   { return false }
func (s *silence) SetAutoComplete(func(string) string) {}
