variable "region" {
  description = "Where everything is made."
  type        = string
}

variable "name" {
  description = "Begins the name of everything that is made; buckets need it to be yours alone."
  type        = string
  default     = "anonlib"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{2,30}$", var.name))
    error_message = "A name has 3 to 31 lower-case letters, digits and hyphens."
  }
}

variable "input_bucket" {
  description = "The bucket of the photographs. It is yours: nothing here makes, changes or empties it."
  type        = string
}

variable "input_key" {
  description = "The ARN of the KMS key that seals the input bucket, if one of yours does."
  type        = string
  default     = null
}

variable "release_prefix" {
  description = "The folder of the release in its bucket, such as 2026-11. The roles reach no other release."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]*[A-Za-z0-9]$", var.release_prefix))
    error_message = "A prefix has letters, digits and . _ - / and neither begins nor ends with a slash."
  }
}

variable "workspace_prefix" {
  description = "The folder of the workspace in its bucket; release_prefix if not given."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]*[A-Za-z0-9]$", coalesce(var.workspace_prefix, "none")))
    error_message = "A prefix has letters, digits and . _ - / and neither begins nor ends with a slash."
  }
}

variable "input_prefix" {
  description = "The folder of the photographs in their bucket; release_prefix if not given."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]*[A-Za-z0-9]$", coalesce(var.input_prefix, "none")))
    error_message = "A prefix has letters, digits and . _ - / and neither begins nor ends with a slash."
  }
}

variable "admin_arns" {
  description = "Who may change the workspace's bucket: the role that runs Terraform, and one for emergencies."
  type        = list(string)

  validation {
    condition = length(var.admin_arns) > 0 && alltrue([
      for one in var.admin_arns : can(regex("^arn:aws:iam::[0-9]{12}:(role|user)/[^*?]+$", one))
    ])
    error_message = "Give at least one IAM role or user by its ARN, without * and ?; else nobody could change the bucket."
  }
}

variable "workspace_days" {
  description = "After so many days personal data in the workspace is deleted, whether or not anybody purged it."
  type        = number
  default     = 30
}

variable "oidc_provider" {
  description = "The OIDC provider of an EKS cluster, without https://, whose service accounts may take the roles."
  type        = string
  default     = null
}

variable "namespace" {
  description = "The Kubernetes namespace of those service accounts."
  type        = string
  default     = "anonlib"
}

variable "trusted_arns" {
  description = "IAM principals of people who may take the roles review, audit, verify and purge."
  type        = list(string)
  default     = []
}

variable "alarm_email" {
  description = "Who is told of alarms; nobody if null."
  type        = string
  default     = null
}

variable "vpc" {
  description = "The id of the VPC of infra/aws/cluster.yaml's machines; without it no security group is made."
  type        = string
  default     = null
}

variable "ssh_from" {
  description = "The addresses (CIDR) of the machines that run `ray up`, which reaches the head by ssh."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for one in var.ssh_from : can(regex("/(1[6-9]|2[0-9]|3[0-2])$", one))])
    error_message = "Give networks of at most 65,536 addresses, such as 203.0.113.7/32."
  }
}
