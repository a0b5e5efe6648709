# Buckets and roles of the pipeline on AWS, for OpenTofu or Terraform:
#   cd infra/tofu && tofu init && tofu validate
#   tofu apply -var data_bucket=NAME -var registry_bucket=NAME -var 'trusted=["arn:aws:iam::ACCOUNT:root"]'
# CI does not run `tofu validate`, because no Python package provides tofu; tests/infra/test_files.py checks syntax, format, references and
# rights. `tofu output -raw environment` prints the variables that the stages need.
terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

provider "aws" {
  region = var.region
}

variable "region" {
  type    = string
  default = "us-east-1"
}

variable "data_bucket" {
  type        = string
  description = "Shards and DVC's outputs: ALEXNET_BUCKET."
}

variable "registry_bucket" {
  type        = string
  description = "Releases and their aliases: ALEXNET_REGISTRY."
}

variable "trusted" {
  type        = list(string)
  description = "ARNs that may assume the roles: accounts, users, or the roles of nodes and service accounts."
}

variable "lock_days" {
  type        = number
  default     = 365
  description = "Days for which no role can delete an object version in the registry."
}

variable "lock_mode" {
  type        = string
  default     = "GOVERNANCE"
  description = "GOVERNANCE; or COMPLIANCE, which nobody can shorten, not even the account's owner."
}
