//go:build !v15

package coupon

import "regexp"

var compiled = regexp.MustCompile(expression)

func pattern() *regexp.Regexp {
	return compiled
}
