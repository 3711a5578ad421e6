"""Drawing: values that keep their numbers and draw themselves, layout, colours and pages."""
