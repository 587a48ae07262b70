-- Operators read everything, keep the masters and call what is for people; invoices change by functions only.
do $$
begin
    if to_regrole('rowbeat_operator') is null then
        return;
    end if;
    grant select on all tables in schema invoice to rowbeat_operator;
    grant insert, update, delete on invoice.product, invoice.denomination, invoice.customer to rowbeat_operator;
    grant execute on function invoice.create_invoice(text, text, jsonb, jsonb), invoice.delete_invoice(bigint, boolean), invoice.resend_email(bigint, boolean),
        invoice.make_change(numeric, integer[]), invoice.round_half_even(numeric, integer), invoice.email_body(bigint), invoice.seed_denominations(),
        invoice.save_product(bigint, jsonb), invoice.save_denomination(bigint, jsonb), invoice.save_customer(bigint, jsonb), invoice.delete_product(bigint)
        to rowbeat_operator;
end $$;
