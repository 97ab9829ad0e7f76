//! Prints the agent's metric reference as rows of a Markdown table.
fn main() {
    #[allow(clippy::print_stdout, reason = "the table is the output")]
    {
        print!("{}", fairlead_runtime::metrics::reference_rows(&fairlead_agent::metrics::page().0));
    }
}
