//go:build v15

package coupon

import "regexp"

// pattern compiles the expression anew for every coupon: the regression.
func pattern() *regexp.Regexp {
	return regexp.MustCompile(expression)
}
