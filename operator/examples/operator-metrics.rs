//! Prints the reference of the operator's metrics as a Markdown table.
fn main() {
    let page = fairlead_operator::metrics_page();
    #[allow(clippy::print_stdout, reason = "the table is the output")]
    {
        print!("{}", fairlead_runtime::metrics::reference_markdown(&page));
    }
}
