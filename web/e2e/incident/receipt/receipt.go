// Package receipt writes what the customer gets.
package receipt

import (
	"io"
	"text/template"

	"example.com/checkout/pricing"
)

var page = template.Must(template.New("receipt").Parse(`Order {{.ID}}
{{range .Items}}{{.Count}} x {{.Name}} at {{.Cents}}
{{end}}Discount {{.Discount}}
Total {{.Cents}}
`))

// Write writes the receipt of an order.
func Write(w io.Writer, o *pricing.Order) error {
	return page.Execute(w, o)
}
