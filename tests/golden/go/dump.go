package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// differencesMax is how many differences an answer names: the rest usually says the same.
const differencesMax = 10

// dump says everything a profile means, a line a thing, without the order and ids that mean nothing.
func dump(p *profile.Profile) []string {
	var lines []string
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for i, sampleType := range p.SampleType {
		line("sample type %d: %s/%s", i, sampleType.Type, sampleType.Unit)
	}
	if p.PeriodType != nil {
		line("period type: %s/%s", p.PeriodType.Type, p.PeriodType.Unit)
	}
	line("period: %d", p.Period)
	line("time: %d", p.TimeNanos)
	line("duration: %d", p.DurationNanos)
	line("default sample type: %q", p.DefaultSampleType)
	line("doc url: %q", p.DocURL)
	line("drop frames: %q keep frames: %q", p.DropFrames, p.KeepFrames)
	line("comments: %q", p.Comments)
	for i, mapping := range p.Mapping {
		main := ""
		if i == 0 {
			main = "main "
		}
		line("%smapping: %s", main, dumpMapping(mapping))
	}
	locations := make(map[uint64]string, len(p.Location))
	for _, location := range p.Location {
		locations[location.ID] = dumpLocation(location)
		line("location: %s", locations[location.ID])
	}
	for _, function := range p.Function {
		line("function: %s", dumpFunction(function))
	}
	for _, sample := range p.Sample {
		line("sample: %s", dumpSample(sample, locations))
	}
	return lines
}

func dumpMapping(m *profile.Mapping) string {
	has := []bool{m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames}
	return fmt.Sprintf("%#x-%#x+%#x %q %q %v", m.Start, m.Limit, m.Offset, m.File, m.BuildID, has)
}

func dumpFunction(f *profile.Function) string {
	return fmt.Sprintf("%q %q %q %d", f.Name, f.SystemName, f.Filename, f.StartLine)
}

func dumpLocation(l *profile.Location) string {
	text := fmt.Sprintf("%#x", l.Address)
	if l.Mapping != nil {
		text = fmt.Sprintf("%#x in %s", l.Address-l.Mapping.Start, dumpMapping(l.Mapping))
	}
	if l.IsFolded {
		text += " folded"
	}
	for _, line := range l.Line {
		text += fmt.Sprintf(" [%s at %d:%d]", dumpFunction(line.Function), line.Line, line.Column)
	}
	return text
}

func dumpSample(s *profile.Sample, locations map[uint64]string) string {
	var text strings.Builder
	fmt.Fprint(&text, s.Value)
	for _, location := range s.Location {
		text.WriteString("\n        ")
		text.WriteString(locations[location.ID])
	}
	var labels []string
	for key, values := range s.Label {
		labels = append(labels, fmt.Sprintf("\n        label %q=%q", key, values))
	}
	for key, values := range s.NumLabel {
		labels = append(labels, fmt.Sprintf("\n        label %q=%d %q", key, values, s.NumUnit[key]))
	}
	slices.Sort(labels)
	return text.String() + strings.Join(labels, "")
}

// difference names the lines that stand more often on one side than on the other.
func difference(theirs, ours []string) []string {
	counts := map[string]int{}
	for _, line := range theirs {
		counts[line]++
	}
	for _, line := range ours {
		counts[line]--
	}
	var differences []string
	for line, count := range counts {
		if count > 0 {
			differences = append(differences, fmt.Sprintf("pprof only, %dx: %s", count, line))
		} else if count < 0 {
			differences = append(differences, fmt.Sprintf("ours only, %dx: %s", -count, line))
		}
	}
	slices.Sort(differences)
	if len(differences) > differencesMax {
		more := fmt.Sprintf("and %d more", len(differences)-differencesMax)
		differences = append(differences[:differencesMax], more)
	}
	return differences
}
