-- A sale, from the form's values to the mail's text.
do $$
declare
    v_product  bigint;
    v_id       bigint;
    v_invoice  invoice.invoice;
begin
    insert into invoice.product (name, code, price, tax_percent, stock) values ('Milk', 'TEST-P001', 20, 5, 10) returning id into v_product;
    update invoice.denomination set is_enabled = value in (500, 200, 50, 5, 2, 1);
    v_id := invoice.create_invoice('Ann', ' Ann@Test.Example ', jsonb_build_array(jsonb_build_object('product_id', v_product, 'quantity', '2')), '{"500": "1"}');
    select * into v_invoice from invoice.invoice i where i.id = v_id;
    assert v_invoice.net_amount = 42.00 and v_invoice.balance_amount = 458.00, 'amounts';
    assert v_invoice.change_denoms = '{"200": 2, "50": 1, "5": 1, "2": 1, "1": 1}', 'change';
    assert (select p.stock from invoice.product p where p.id = v_product) = 8, 'stock';
    assert (select c.is_enabled from invoice.customer c where c.email = 'ann@test.example'), 'customer';
    assert invoice.email_body(v_invoice.id) like E'Invoice No: %\n- Milk (TEST-P001) | Qty: 2 | Unit: 20.00 | Tax: 2.00 | Total: 42.00\n%', 'mail';
    assert v_invoice.email_task is not null, 'its mail is enqueued';
end $$;
