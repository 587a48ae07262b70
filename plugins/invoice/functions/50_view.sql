-- The tables under the names of the system that this replaces, for reports that people have. Read only: a view with WITH takes no writes.

create or replace view invoice.product_master as
with p as (
    select p.id as productid, p.name as productname, p.code as productcode, p.price as unitprice, p.tax_percent as taxpercent,
        p.stock as availablestock, case when p.is_enabled then 0 else 1 end as dispstatus, p.created_at as prcsdate
    from invoice.product p
) select * from p;
comment on view invoice.product_master is 'Products. dispstatus: 0 enabled, 1 disabled.';

create or replace view invoice.denomination_master as
with d as (
    select d.id as denominationid, d.value as denominationvalue, case when d.is_enabled then 0 else 1 end as dispstatus, d.created_at as prcsdate
    from invoice.denomination d
) select * from d;
comment on view invoice.denomination_master is 'Denominations.';

create or replace view invoice.customer_master as
with c as (
    select c.id as customerid, c.name as custname, c.email as custemail, case when c.is_enabled then 0 else 1 end as dispstatus, c.created_at as prcsdate
    from invoice.customer c
) select * from c;
comment on view invoice.customer_master is 'Customers.';

create or replace view invoice.transaction_master as
with i as (
    select i.id as invoiceid, i.customer_name as custname, i.customer_email as custemail, i.gross_amount as grossamount, i.tax_amount as taxamount,
        i.net_amount as netamount, i.rounded_payable as roundedpayable, i.paid_amount as paidamount, i.balance_amount as balanceamount,
        i.received_denoms as receiveddenoms, i.change_denoms as changedenoms, i.email_sent as emailsent, i.email_fail_count as emailfailcount,
        i.email_last_error as emaillasterror, i.created_at as prcsdate
    from invoice.invoice i
) select * from i;
comment on view invoice.transaction_master is 'Invoices.';

create or replace view invoice.transaction_details as
with l as (
    select l.id as detailid, l.invoice_id as invoiceid, l.product_id as productid, l.unit_price as unitprice, l.tax_percent as taxpercent,
        l.quantity, l.line_subtotal as linesubtotal, l.line_tax as linetax, l.line_total as linetotal
    from invoice.invoice_item l
) select * from l;
comment on view invoice.transaction_details is 'Lines of invoices.';
