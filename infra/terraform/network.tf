# The security group of the machines of infra/aws/cluster.yaml. The one that Ray makes lets everyone in by ssh.
locals {
  # From and to; infra/aws/cluster.yaml fixes Ray's ports. The head reaches its workers by ssh.
  cluster_ports = {
    ssh     = [22, 22]
    gcs     = [6379, 6379]
    node    = [8076, 8080]
    workers = [10002, 10999]
    agent   = [52365, 52365]
  }
  within_cluster = { for name, ports in local.cluster_ports : name => ports if var.vpc != null }
}

resource "aws_security_group" "cluster" {
  #checkov:skip=CKV2_AWS_5:Machines of infra/aws/cluster.yaml wear it, and Terraform does not start them
  count       = var.vpc == null ? 0 : 1
  name        = "${var.name}-cluster"
  description = "Machines of an anonlib cluster"
  vpc_id      = var.vpc
}

resource "aws_vpc_security_group_ingress_rule" "within" {
  for_each                     = local.within_cluster
  description                  = "${each.key} from the machines of the cluster"
  security_group_id            = aws_security_group.cluster[0].id
  referenced_security_group_id = aws_security_group.cluster[0].id
  ip_protocol                  = "tcp"
  from_port                    = each.value[0]
  to_port                      = each.value[1]
}

resource "aws_vpc_security_group_egress_rule" "within" {
  for_each                     = local.within_cluster
  description                  = "${each.key} to the machines of the cluster"
  security_group_id            = aws_security_group.cluster[0].id
  referenced_security_group_id = aws_security_group.cluster[0].id
  ip_protocol                  = "tcp"
  from_port                    = each.value[0]
  to_port                      = each.value[1]
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each          = var.vpc == null ? toset([]) : toset(var.ssh_from)
  description       = "ssh from where ray up is run"
  security_group_id = aws_security_group.cluster[0].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

# S3, STS, Secrets Manager, EC2 and the registry of the images: a security group knows no names.
resource "aws_vpc_security_group_egress_rule" "https" {
  count             = var.vpc == null ? 0 : 1
  description       = "AWS and the registry of the images"
  security_group_id = aws_security_group.cluster[0].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
