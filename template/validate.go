package template

// Validate tells whether Build would refuse the options; the error is ErrOption.
func (o BuildOptions) Validate() error {
	_, err := o.complete()
	return err
}
